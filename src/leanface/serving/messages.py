"""Messages between the service and its workers."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Format = Literal["json", "glb", "png"]
Texture = Literal[0, 512, 1024, 2048]


@dataclass(frozen=True)
class Job:
    """A photo to read.

    Attributes:
        texture: side (px) of the mesh's texture; 0 for the model's albedo.
    """

    photo: bytes
    format: Format = "json"
    faces: Literal["all", "largest"] = "all"
    texture: Texture = 0


@dataclass(frozen=True)
class Answer:
    """The answer to a job.

    Attributes:
        body: the answer as the client asked for it; empty after an error.
        error: a kind in `leanface.serving.refusals.STATUS`, or None.
        detail: the error in words.
        steps_ms: duration of each step; the network's is that of the whole batch.
        features: of each face, see `leanface.monitoring.drift.features`.
        batch: how many photos were read together.
        network: file name of the network that read the photo; empty after an error.
    """

    body: bytes = b""
    error: str | None = None
    detail: str = ""
    steps_ms: dict[str, float] = field(default_factory=dict[str, float])
    features: np.ndarray | None = None
    batch: int = 1
    network: str = ""


@dataclass(frozen=True)
class Ready:
    """A worker is ready.

    Attributes:
        model: the network's file name.
    """

    model: str
    runtime: str
    precision: str
    image_size: int


@dataclass(frozen=True)
class Failed:
    """A worker cannot start; another attempt would fail the same way."""

    reason: str


@dataclass(frozen=True)
class Answered:
    """A worker's answer to the next job of its batch, and its memory then."""

    answer: Answer
    memory_bytes: int
