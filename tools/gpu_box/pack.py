"""What a run made, as a few files of limited size: reports, logs, and weights in float16."""

import io
import logging
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from leanface import paths
from leanface.bundle import WEIGHTS
from leanface.errors import ArtifactError
from leanface.files import atomic_write, copy_file, staged
from tools.archives import extract
from tools.gpu_box.record import RECORD, Run, load_run, save_run
from tools.gpu_box.steps import MANIFEST, object_id
from tools.gpu_box.weights import expand, is_bundle, shrink

logger = logging.getLogger(__name__)

NAME = "leanface-run.tar.gz"
PART = re.compile(rf"{re.escape(NAME)}\.(\d+)of(\d+)")
HALF = ".half"
"""Ends the name of weights that `shrink` made."""


class Packed(NamedTuple):
    parts: list[Path]
    size_bytes: int


def pack(
    folder: Path, stages: Sequence[str], part_bytes: int, *, reports: Sequence[str] = (), weights: bool = True
) -> Packed:
    """Write the run into `folder`, in parts of at most `part_bytes`.

    Faces, ONNX files and engines stay behind: they are made again from what is packed.

    Args:
        stages: whose weights and reports are taken, by title or, for every variant, by name; the logs of all steps are.
        reports: stages whose reports alone are taken.
        weights: False takes the reports alone, of one of many runs.

    Raises:
        ArtifactError: nothing was run, or a step's output has changed since.
    """
    run = load_run()
    whole = set(stages) if weights else set[str]()
    named = {*stages, *reports}
    chosen = {title: done for title, done in run.steps.items() if _names(title) & named}
    if absent := named - {name for title in run.steps for name in _names(title)}:
        logger.warning("not run, so not packed: %s", ", ".join(sorted(absent)))
    for title, done in chosen.items():
        for path, expected in done.outputs.items():
            if object_id(Path(path)) != expected:
                raise ArtifactError(f"{path} is not what {title} wrote; run `python -m tools.gpu_box run` again.")
    folder.mkdir(parents=True, exist_ok=True)
    for old in _parts(folder):
        old.unlink()
    with tempfile.TemporaryFile(dir=folder) as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
            for path in [paths.CONFIG, paths.DEVICE, RECORD, paths.FACES / MANIFEST]:
                if path.is_file():
                    archive.add(path)
            logs = RECORD.parent / "logs"
            if logs.is_dir():
                archive.add(logs)
            for title, done in chosen.items():
                outputs = [p for p in map(Path, done.outputs) if _names(title) & whole or not is_bundle(p)]
                size_bytes = sum(_add(archive, path) for path in outputs)
                logger.info("%s: %.1f MB", title, size_bytes / 1e6)
        size_bytes = file.tell()
        count = -(-size_bytes // part_bytes)
        parts = [folder / f"{NAME}.{number}of{count}" for number in range(1, count + 1)]
        file.seek(0)
        for part in parts:
            atomic_write(part, file.read(part_bytes))
    return Packed(parts, size_bytes)


def unpack(folder: Path) -> Run:
    """Put what `pack` wrote into `folder` back into this working tree, to go on there on a new machine.

    Returns:
        the record, with the outputs of those steps alone that are there.

    Raises:
        ArtifactError: a part is missing or damaged, or an output is not what was packed; nothing is put back then.
    """
    parts = _complete(folder)
    with tempfile.TemporaryDirectory(dir=paths.REPORTS.parent) as workplace, tempfile.TemporaryFile() as file:
        new = Path(workplace)
        for part in parts:
            file.write(part.read_bytes())
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:gz") as archive:
                extract(archive, new)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ArtifactError(f"{folder} is damaged ({error}); copy it again from where it came.") from None
        for half in sorted(new.rglob(f"*{HALF}")):
            half.with_suffix("").write_bytes(expand(half.read_bytes()))
            half.unlink()
        run = load_run(new / RECORD)
        for title, done in run.steps.items():
            present = {path: digest for path, digest in done.outputs.items() if (new / path).exists()}
            present.pop(str(paths.FACES), None)  # only their manifest travels
            for path, expected in present.items():
                if object_id(new / path) != expected:
                    raise ArtifactError(f"{path} is not what {title} wrote: copy {folder} again from where it came.")
            done.outputs = present
        save_run(run, new / RECORD)
        outputs = [Path(path) for done in run.steps.values() for path in done.outputs]
        for path in (*outputs, RECORD.parent, paths.CONFIG):
            _put(new / path, path)
    return run


def _put(source: Path, target: Path) -> None:
    """Copy a file or folder in place of what is at `target`."""
    if source.is_dir():
        with staged(target, owned=True) as new:
            shutil.copytree(source, new, dirs_exist_ok=True)
    else:
        copy_file(source, target)


def _names(title: str) -> set[str]:
    """What a step may be called: `export@distilled_fp16`, or `export` with the other variants."""
    return {title, title.partition("@")[0]}


def _add(archive: tarfile.TarFile, path: Path) -> int:
    """Add an output that is carried; returns its size in bytes."""
    if is_bundle(path):
        size_bytes = 0
        for file in sorted(path.iterdir()):
            if file.name != WEIGHTS:
                archive.add(file)
                size_bytes += file.stat().st_size
                continue
            contents = shrink(file.read_bytes())
            member = tarfile.TarInfo(f"{file}{HALF}")
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
            size_bytes += len(contents)
        return size_bytes
    if paths.REPORTS not in path.parents:
        return 0
    archive.add(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _parts(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if PART.fullmatch(path.name))


def _complete(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder; expected one with the files {NAME}.1of1 or so.")
    found = {path.name: path for path in _parts(folder)}
    counts = {int(match[2]) for name in found if (match := PART.fullmatch(name))}
    if len(counts) != 1:
        raise ArtifactError(
            f"{folder} must hold the parts of one run ({NAME}.1of2, ...), got {sorted(found) or 'none'}"
        )
    wanted = [f"{NAME}.{number}of{max(counts)}" for number in range(1, max(counts) + 1)]
    if missing := [name for name in wanted if name not in found]:
        raise ArtifactError(f"{folder} lacks {', '.join(missing)}; bring every part.")
    return [found[name] for name in wanted]
