"""One worker: a network that is loaded once, and chunks of photos, each done as a folder is on one machine."""

import json
import pickle
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from leanface.batch.chunks import Chunk, Photo
from leanface.batch.storage import FACES, FAILED, HEADS, RUNS, Storage
from leanface.errors import ArtifactError, ConfigError, LeanFaceError, reason
from leanface.extras import installed_version
from leanface.files import Json, digest, scratch
from leanface.reconstruction.outputs import Settings

REQUESTS = 16
"""Files of a chunk that are read or written at the same time."""


class Job(NamedTuple):
    """What each machine needs to know.

    Attributes:
        photos: URL or path of the folder of photos.
        out: of the folder of results.
        cores: of each worker.
        gpus: of each worker: 0 or 1.
        chunk: how many photos are done, recorded and lost together, at most.
        made_with: see `Storage.claim`; what the machine that started this has.
    """

    photos: str
    out: str
    settings: Settings
    model: Path | None
    runtime: str
    cores: int
    gpus: int
    chunk: int
    made_with: Json


class Outcome(NamedTuple):
    """What became of a chunk.

    Attributes:
        failed: photos without a result, each with the reason.
        problem: why nothing can be done at all, and this run has to end.
    """

    chunk: Chunk
    faces: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    problem: str | None = None


def describe(settings: Settings, model: Path | None, runtime: str, photos: str) -> Json:
    """Say what decides the results, as far as this machine knows it.

    Raises:
        ArtifactError: there is no such network.
    """
    if model is not None and not model.exists():
        raise ArtifactError(f"there is no network at {model}.")
    network = "shipped" if model is None else digest(model)
    version = installed_version("leanface")
    return {"photos": photos, "leanface": version, "network": network, "runtime": runtime, **asdict(settings)}


def check(job: Job) -> str | None:
    """Say why this machine cannot do its part; None if it can."""
    try:
        own = describe(job.settings, job.model, job.runtime, job.photos)
        if others := [name for name, value in job.made_with.items() if own[name] != value]:
            raise ConfigError(f"it has another {others[0]}: {own[others[0]]}, expected {job.made_with[others[0]]}.")
        if not Storage(job.out).names(RUNS):
            raise ArtifactError(f"it does not see {job.out}. All machines must share that folder; or name a URL.")
        if not any(Storage(job.photos).pages()):
            raise ArtifactError(f"it finds no files in {job.photos}.")
        if job.settings.mesh == "usdz":
            from leanface.face.usdz import require_usd

            require_usd()
    except LeanFaceError as error:
        return str(error)
    return None


class Worker:
    """Lives in a process of its own, on any machine, and is called by two threads: one waits while another computes."""

    def __init__(self, job: Job) -> None:
        """Load the network."""
        from leanface.reconstruction.lean_face import LeanFace
        from leanface.reconstruction.outputs import made_with

        self._job = job
        self._photos, self._out = Storage(job.photos), Storage(job.out)
        self._problem: str | None = None
        try:
            self._lean_face = LeanFace.load(job.model, job.runtime, job.cores, min_face_px=job.settings.min_face_px)
            self._made_with = made_with(self._lean_face)
        except Exception as error:
            self._problem = f"{platform.node()}: {reason(error)}"

    def __call__(self, table: Any) -> Any:
        """Reconstruct what the column `chunk` has, and return the outcomes."""
        import pyarrow  # pyright: ignore[reportMissingTypeStubs]

        pa: Any = pyarrow
        outcomes = [self._outcome(pickle.loads(chunk)) for chunk in table["chunk"].to_pylist()]
        return pa.table({"outcome": [pickle.dumps(outcome) for outcome in outcomes]})

    def _outcome(self, chunk: Chunk) -> Outcome:
        if (problem := chunk.problem or self._problem) is not None or not chunk.photos:
            return Outcome(chunk, problem=problem)
        try:
            with scratch() as folder:
                return self._reconstruct(chunk, folder)
        except Exception as error:
            return Outcome(chunk, problem=f"{platform.node()}: {reason(error)}")

    def _reconstruct(self, chunk: Chunk, folder: Path) -> Outcome:
        from leanface.batch.table import chunk_name, encode_table
        from leanface.reconstruction.flow import reconstruct_all
        from leanface.reconstruction.sources import Source

        photos = {str(number): photo for number, photo in enumerate(chunk.photos)}
        paths = {name: folder / "in" / (name + Path(photo.name).suffix) for name, photo in photos.items()}
        (folder / "in").mkdir()
        failed: dict[str, str] = {}
        rows: list[Json] = []
        with ThreadPoolExecutor(REQUESTS) as threads:
            reasons = threads.map(self._fetch, photos.values(), paths.values())
            failed.update({name: why for name, why in zip(photos, reasons, strict=True) if why is not None})
            sources = [Source(name, photos[name].name, paths[name]) for name in photos if name not in failed]
            for outcome in reconstruct_all(
                self._lean_face, sources, folder / "out", self._job.settings, workers=self._job.cores
            ):
                name, photo = outcome.name, photos[outcome.name]
                if outcome.error is not None:
                    failed[name] = outcome.error.replace(str(paths[name]), photo.name)
                    continue
                rows += _rows(photo, folder / "out" / name)
                files = [file for file in (folder / "out" / name).glob("*.*") if _goes_out(file)]
                places = [f"{HEADS}/{photo.name}/{file.name}" for file in files]
                list(threads.map(self._out.write, places, [file.read_bytes() for file in files]))
        reasons_by_name = tuple((_printable(photos[name].name), why) for name, why in failed.items())
        if reasons_by_name:
            lines = (json.dumps({"photo": name, "reason": why}) for name, why in reasons_by_name)
            self._out.write(f"{FAILED}/{chunk_name(chunk)}.jsonl", "".join(f"{line}\n" for line in lines).encode())
        if rows:
            self._out.write(f"{FACES}/{chunk_name(chunk)}.parquet", encode_table(rows, self._made_with))
        return Outcome(chunk, len(rows), reasons_by_name)

    def _fetch(self, photo: Photo, path: Path) -> str | None:
        """Copy a photo to this machine; say why that failed, if it did."""
        try:
            content = self._photos.read(photo.name)
            if content is None:
                return "it is not there any more"
        except LeanFaceError as error:
            return str(error)
        path.write_bytes(content)
        return None


def _goes_out(file: Path) -> bool:
    """Tell meshes and pictures from what is in the tables."""
    return not file.name.startswith(".") and file.suffix != ".json"


def _rows(photo: Photo, folder: Path) -> Iterator[Json]:
    for file in sorted(folder.glob("face_*.json"), key=lambda file: int(file.stem.partition("_")[2])):
        face = {"photo": _printable(photo.name), "fingerprint": photo.fingerprint}
        yield {**face, "face": int(file.stem.partition("_")[2]), **json.loads(file.read_bytes())}


def _printable(name: str) -> str:
    """Write out bytes of a name that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()
