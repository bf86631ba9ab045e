"""What the service's process and its workers say to each other."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Format = Literal["json", "glb", "png"]
Texture = Literal[0, 512, 1024, 2048]

STATUS: dict[str, int] = {
    "not_a_photo": 400,
    "unauthorized": 401,
    "not_found": 404,
    "wrong_method": 405,
    "slow_upload": 408,
    "too_large": 413,
    "bad_query": 422,
    "no_face": 422,
    "busy": 429,
    "internal": 500,
    "not_ready": 503,
    "worker_died": 503,
    "time_limit": 504,
}
"""Kinds of errors, and the HTTP status of each."""

FAILURES = ("internal", "worker_died", "time_limit")
"""Kinds that are the service's fault."""


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
    """What became of it.

    Attributes:
        body: the answer as the client asked for it; empty after an error.
        error: a kind in `STATUS`, or None.
        detail: the error in words.
        steps_ms: how long each step took; a batch's network counts fully for each of its photos.
        features: of each face, see `leanface.monitoring.drift.features`.
        reread: faces that the larger network read again.
        batch: how many photos were read together.
    """

    body: bytes = b""
    error: str | None = None
    detail: str = ""
    steps_ms: dict[str, float] = field(default_factory=dict[str, float])
    features: np.ndarray | None = None
    reread: int = 0
    batch: int = 1


@dataclass(frozen=True)
class Ready:
    """A worker can begin.

    Attributes:
        model: the network's file name.
    """

    model: str
    runtime: str
    precision: str
    image_size: int


@dataclass(frozen=True)
class Failed:
    """A worker cannot begin; another attempt would fail the same way."""

    reason: str


@dataclass(frozen=True)
class Answers:
    """Of one batch, in order, and the worker's memory after it."""

    answers: list[Answer]
    memory_bytes: int
