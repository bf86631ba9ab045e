"""What `leanface serve` may be told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from leanface.config import Count, NonNegative, Positive, Section
from leanface.errors import ConfigError


class Settings(Section):
    """Of the service. The limits protect it from its clients, whoever they are.

    Attributes:
        model: an exported network, see `leanface.reconstruction.LeanFace.load`; None for the default.
        larger: a second network, which reads again what the first finds strange, see `leanface.serving.adaptive`.
        budget_ms: what that may cost per face on average.
        threads: of each worker's network; None divides the processors among the workers.
        workers: processes, each with a network of its own.
        batch_max: photos that a worker takes at once.
        batch_wait_ms: how long it waits for a second photo when it has one.
        queue_max: photos that wait; one more is answered with 429.
        time_limit_s: from a photo's arrival to its answer; a worker that takes longer is replaced.
        bytes_max: of a photo's file.
        pixels_max: of the photo, known before it is decoded.
        faces_max: of one photo; the largest are read.
        api_key: which clients must send, if there is one.
        cors_origins: of web pages that browsers let use the service; none by default.
        tick_s: how often the monitor judges.
        watch_drift: compare faces with the training's.
        track: write the monitor's numbers to MLflow.
    """

    model: Path | None = None
    larger: Path | None = None
    budget_ms: Positive = 20.0
    runtime: str = "auto"
    threads: Count | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    batch_max: Annotated[int, Field(ge=1, le=256)] = 8
    batch_wait_ms: NonNegative = 2.0
    queue_max: Count = 64
    time_limit_s: Positive = 20.0
    bytes_max: Count = 20 * 2**20
    pixels_max: Count = 50_000_000
    faces_max: Count = 16
    api_key: Annotated[str, Field(min_length=16)] | None = None
    cors_origins: tuple[str, ...] = ()
    tick_s: Positive = 10.0
    watch_drift: bool = True
    track: bool = False

    @classmethod
    def given(cls, values: Mapping[str, Any]) -> Self:
        """From the command line.

        Raises:
            ConfigError: a value is out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:  # without the values: one is a secret
            lines = [f"  {_told_by(str(found['loc'][0]))}: {found['msg']}" for found in error.errors()]
            raise ConfigError("\n".join(["leanface serve was told what it cannot do:", *lines])) from None


def _told_by(name: str) -> str:
    """Where a setting comes from: an option, or the environment, since other users of the machine see options."""
    return "LEANFACE_API_KEY" if name == "api_key" else f"--{name.replace('_', '-')}"
