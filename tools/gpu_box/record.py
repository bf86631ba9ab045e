"""What a run did: kept beside its results, brought back with them, and checked before they are believed."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from leanface import paths
from leanface.errors import ArtifactError
from leanface.files import atomic_write
from tools.gpu_box.steps import Step, object_id

RECORD = paths.OFFLINE / "run.json"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StepRecord(Section):
    """One step, as far as it came.

    Attributes:
        sections: of the configuration, as the step read them.
        inputs: git's id of everything that it read, by path (see `steps.object_id`); outputs likewise.
        seconds: of all pieces.
        error: the last line that it printed, unless it finished.
    """

    status: Literal["finished", "unfinished", "failed"]
    sections: dict[str, Any]
    inputs: dict[str, str | None]
    outputs: dict[str, str | None] = {}
    seconds: float = 0.0
    pieces: int = 0
    error: str | None = None


class Run(Section):
    """Attributes: `device` is `leanface.device.describe_device`'s of the machine; `steps` are by title."""

    format_version: Literal[1] = 1
    device: dict[str, Any] = {}
    steps: dict[str, StepRecord] = {}


def load_run(path: Path = RECORD) -> Run:
    """Read a record.

    Raises:
        ArtifactError: it is missing or not a record of this version.
    """
    try:
        return Run.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run `python -m tools.gpu_box run`, which makes it.") from None
    except ValidationError as error:
        raise ArtifactError(f"{path} is no record of a run: {error}") from None


def save_run(run: Run, path: Path = RECORD) -> None:
    atomic_write(path, run.model_dump_json(indent=1) + "\n")


def ids_of(paths_: tuple[Path, ...]) -> dict[str, str | None]:
    return {str(path): object_id(path) for path in paths_}


def begin(step: Step, config: dict[str, Any]) -> StepRecord:
    """The record of a step that is about to run."""
    sections = {name: config[name] for name in step.sections}
    return StepRecord(status="unfinished", sections=sections, inputs=ids_of(step.inputs))


def same_work(one: StepRecord, other: StepRecord) -> bool:
    return one.sections == other.sections and one.inputs == other.inputs
