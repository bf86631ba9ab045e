"""`leanface reconstruct` over a cluster: checked, watched and summed up where it was started."""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from leanface.batch.chunks import PHOTOS
from leanface.batch.cluster import CONTINUE, check_machines, outcomes
from leanface.batch.storage import Storage, is_url
from leanface.batch.worker import Job, Outcome, describe
from leanface.catalog import RUNTIMES
from leanface.cluster import joined, machines
from leanface.errors import ArtifactError, ConfigError
from leanface.reconstruction.command import counted
from leanface.reconstruction.outputs import Settings

logger = logging.getLogger(__name__)


def run(
    inputs: Sequence[str],
    out: str,
    settings: Settings,
    *,
    model: Path | None = None,
    runtime: str = "auto",
    threads: int | None = None,
    cluster: str | None = None,
    redo: bool = False,
    chunk: int = PHOTOS,
) -> None:
    """Reconstruct a folder of photos; see `leanface reconstruct --help`.

    Args:
        threads: cores of each worker; 1 if not given.
        cluster: Ray's address of one; None starts one of this machine alone.
        chunk: see `Job`.

    Raises:
        LeanFaceError: of the storages, the cluster, the network, or photos that failed.
    """
    if len(inputs) != 1 or inputs[0] == "-" or out == "-":
        raise ConfigError("over a cluster, and from or to URLs, name one folder of photos and one of results.")
    photos, results = (Storage(text if is_url(text) else str(Path(text).absolute())) for text in (inputs[0], out))
    model = None if model is None else model.absolute()
    made_with = describe(settings, model, runtime, photos.url)
    if not any(photos.pages()):
        raise ArtifactError(f"{photos.url} holds no files.")
    with joined(cluster) as ray, results.alone():
        on_gpu = runtime == "auto" or (runtime in RUNTIMES and RUNTIMES[runtime].on_gpu)
        gpus = int(on_gpu and any(machine.gpus for machine in machines(ray)))
        job = Job(photos.url, results.url, settings, model, runtime, threads or 1, gpus, chunk, made_with)
        workers = check_machines(ray, job)
        results.claim(made_with, redo=redo)
        words = counted(workers, "worker"), counted(job.cores, "core")
        logger.info("%s of %s%s", *words, " and a GPU" if gpus else "")
        _watch(outcomes(ray, job, workers), out)


def _watch(found: Iterable[Outcome], out: str) -> None:
    """Show a progress bar and each failure, and sum up.

    Raises:
        ArtifactError: some photos have no result, or nothing can be done at all.
    """
    photos = faces = failed = before = 0
    total: int | None = None
    passed_over = Counter[str]()
    bar = tqdm(unit="photo", disable=None, file=sys.stderr)
    with logging_redirect_tqdm(), bar:
        for outcome in found:
            if outcome.problem is not None:
                raise ArtifactError(f"{outcome.problem} {CONTINUE}")
            for name, reason in outcome.failed:
                logger.warning("left out %s: %s", name, reason)
            photos += len(outcome.chunk.photos)
            faces += outcome.faces
            failed += len(outcome.failed)
            before += outcome.chunk.done
            passed_over.update(dict(outcome.chunk.passed_over))
            total = outcome.chunk.total if total is None else total
            bar.update(len(outcome.chunk.photos))
    if passed_over:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in passed_over.most_common())
        logger.info("passed over, for being no photos that are read here: %s", kinds)
    done = photos - failed
    known = f", {counted(before, 'photo')} done before" if before else ""
    if done or before:
        logger.info("%s in %s%s: see %s", counted(faces, "face"), counted(done, "photo"), known, out)
    if total != photos:
        lost = "some photos" if total is None else counted(total - photos, "photo")
        raise ArtifactError(
            f"{lost} were lost with workers that died again and again: of too little memory, or of a photo. {CONTINUE}"
        )
    if failed and not done and not before:
        raise ArtifactError("nothing could be reconstructed (see above).")
    if failed:
        raise ArtifactError(
            f"{failed:,} of {photos:,} photos could not be reconstructed (see above); the others are written, and a "
            "rerun will try only these."
        )
    if not photos and not before:
        raise ArtifactError("there is nothing to do: no photo was found.")
