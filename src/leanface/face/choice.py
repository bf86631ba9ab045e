"""Which morphable model a pipeline uses: a file among its data, which every stage after prepare reads."""

from pathlib import Path

from leanface.errors import ArtifactError
from leanface.face.basel import load_basel
from leanface.face.morphable_model import MorphableModel, load_morphable_model, save_morphable_model
from leanface.files import copy_file
from leanface.inputs import locate
from leanface.modelscope_hub import BASEL_MODEL, find_snapshot
from leanface.paths import PACKAGED_MORPHABLE_MODEL


def choose_morphable_model(choice: str, path: Path) -> MorphableModel:
    """Load a model and write it to `path`, whole or not at all.

    Args:
        choice: "packaged", "modelscope" (the Basel Face Model in ModelScope's snapshot), or the path of a
            BFM_model_front.mat or of a snapshot's folder.

    Raises:
        ArtifactError: there is no such model, it is damaged, or `path` cannot be written.
    """
    try:
        return _choose(choice, path)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error}. Make room, or make {path.parent} a folder that you may write to."
        ) from error


def _choose(choice: str, path: Path) -> MorphableModel:
    if choice == "packaged":
        model = load_morphable_model()
        # A copy, not `save_morphable_model`: the packaged file is a tenth of its size.
        copy_file(PACKAGED_MORPHABLE_MODEL, path)
        return model
    source = find_snapshot() if choice == "modelscope" else locate(choice)
    model = load_basel(source / BASEL_MODEL if source.is_dir() else source)
    save_morphable_model(model, path)
    return model
