"""Tell which stages belong to one pipeline: all that ran since the last report, in this project or this experiment."""

import contextlib
import json
import os
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from leanface.errors import ArtifactError
from leanface.files import atomic_write
from leanface.tracking.place import cache


@dataclass
class Pipeline:
    """A pipeline that has begun.

    Attributes:
        id: a tag of all its runs.
        started: Unix milliseconds.
    """

    id: str
    started: int


def join_pipeline() -> Pipeline:
    """Return the pipeline that this stage belongs to, which the first stage begins."""
    pipeline = _read() or Pipeline(uuid.uuid4().hex, time.time_ns() // 1_000_000)
    with contextlib.suppress(ArtifactError):  # without it, MLflow shows the stages apart
        atomic_write(_file(), json.dumps(asdict(pipeline)))
    return pipeline


def end_pipeline() -> Pipeline:
    """Return the pipeline that ends here; the next stage begins another one."""
    pipeline = join_pipeline()
    with contextlib.suppress(OSError):
        _file().unlink()
    return pipeline


def _read() -> Pipeline | None:
    try:
        return Pipeline(**json.loads(_file().read_text()))
    except (OSError, ValueError, TypeError):  # none has begun; or it is damaged, or another version's
        return None


def _file() -> Path:
    experiment = os.environ.get("DVC_EXP_NAME", "")  # several may run at once
    return cache() / "mlflow-pipeline" / f"{quote(experiment, safe='') or 'workspace'}.json"
