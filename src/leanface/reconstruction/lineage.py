"""Find the original that a network was compressed from, by what the network records of it.

Every stage that makes a student records the sha256 of its teacher's weights in the bundle, and export copies it into
the ONNX file. Two originals of different image sizes have different weights, so the sizes agree too.
"""

import hashlib
import json
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from leanface import paths
from leanface.bundle import SPEC, load_spec, new_spec, save_bundle, weights_digest
from leanface.errors import ArtifactError
from leanface.networks.packed import load_pretrained
from leanface.runtime.onnx_file import read_onnx


def recorded_teacher(model: Path) -> str | None:
    """Return the digest of the teacher's weights that a bundle or an ONNX file records; None if it records none.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    if model.is_dir():
        return load_spec(model).teacher
    if model.suffix != ".onnx":
        return None
    exported = read_onnx(model)
    if exported.teacher is not None:
        return exported.teacher
    # The file that ships now was exported before files recorded it.
    known = json.loads(paths.PACKAGED_SCORES.read_text())
    return known["teacher"] if hashlib.sha256(exported.content).hexdigest() == known["sha256"] else None


@contextmanager
def teacher_of(model: Path, image_size: int) -> Generator[Path]:
    """Yield the bundle of the network's own original: of its project, of this folder's, or the one that LeanFace ships.

    Args:
        model: the network, as for `LeanFace.load`.
        image_size: of the images that it reads (px).

    Raises:
        ArtifactError: the network records no original, or that one is not here.
    """
    wanted = recorded_teacher(model)
    name = "name it instead of “original”, for example --compare models/teacher."
    if wanted is None:
        raise ArtifactError(f"{model} does not say which network it was compressed from: {name}")
    others: list[str] = []
    for folder in _project_teachers(model):
        if weights_digest(folder) == wanted:
            yield folder
            return
        others.append(f"{folder} ({load_spec(folder).input.size} px) is another network")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            shipped = load_pretrained(image_size)
        except ArtifactError as error:
            others.append(str(error))
        else:
            folder = Path(scratch) / "original"
            save_bundle(shipped, new_spec(shipped, image_size), folder)
            if weights_digest(folder) == wanted:
                yield folder
                return
            others.append(f"the original that LeanFace ships for {image_size} px is another network")
    raise ArtifactError(
        f"the original of {model} ({image_size} px) is not here: {'; '.join(others)}. If you have it, {name}"
    )


def is_teacher_of(other: Path, model: Path) -> bool | None:
    """Tell whether `model` was compressed from the bundle `other`; None if that cannot be told."""
    wanted = recorded_teacher(model)
    return None if wanted is None or not (other / SPEC).is_file() else weights_digest(other) == wanted


def _project_teachers(model: Path) -> Iterator[Path]:
    """Yield models/teacher of the project that the network lies in, then of the current folder, if they are there."""
    own = [folder.parent / paths.TEACHER for folder in model.resolve().parents if folder.name == "models"]
    for folder in dict.fromkeys(path.resolve() for path in (*own[:1], paths.TEACHER)):
        if (folder / SPEC).is_file():
            yield folder
