"""Settings of `leanface serve`."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator

from leanface.catalog import RUNTIMES
from leanface.config import Count, NonNegative, Positive, Section
from leanface.device import visible_gpus
from leanface.errors import ConfigError

API_KEY = "LEANFACE_API_KEY"
"""Environment variable of the key: the machine's other users see options, but not the environment."""

KEY_MIN = 16

PREFIX = re.compile(r"(/[\w~-][\w.~-]*)+", re.ASCII)
"""A path prefix under which a reverse proxy offers a server."""


class Gpu(NamedTuple):
    """A GPU that workers run on.

    Attributes:
        number: of those that the service may use, from 0.
        name: as in `leanface.device.visible_gpus`.
    """

    number: int
    name: str


class Settings(Section):
    """Settings of the service. Their limits protect it from its clients, whoever they are.

    Attributes:
        host: name or address to listen on.
        port: to listen on.
        root_path: path prefix under which a reverse proxy offers the service, such as "/faces".
        model: an exported network, see `leanface.reconstruction.LeanFace.load`; None for the default.
        better_model: a slower network that reads more accurately, for photos behind which nobody waits.
        p99_ms: 99th percentile of the time from a photo's arrival to its answer, within which `better_model` is used.
        runtime: what runs the network; "auto" for the best that can.
        devices: GPUs, each with workers of its own ("all", or numbers such as "0,1"); if there are none, the runtime
            takes the processor or the first GPU.
        threads: of each worker's network; None divides the usable cores among the workers.
        workers: processes, each with a network of its own; with devices, as many on each of them.
        batch_max: photos that a worker takes at once.
        batch_wait_ms: how long it waits for a second photo when it has one.
        queue_max: photos that wait; one more is answered with 429.
        time_limit_s: from a photo's arrival to its answer; a worker that gives no answer for as long is replaced.
        bytes_max: size of a photo's file.
        pixels_max: of a photo, known before it is decoded.
        faces_max: of one photo; the largest are read.
        api_key: which clients must send, if there is one.
        cors_origins: of web pages that browsers let use the service; none by default.
        tick_s: how often the monitor judges.
        watch_drift: compare faces with the training's.
        track: write the monitor's numbers to MLflow.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    root_path: str = ""
    model: Path | None = None
    better_model: Path | None = None
    p99_ms: Annotated[Positive | None, Field(validate_default=True)] = None
    runtime: str = "auto"
    devices: tuple[Gpu, ...] = ()
    threads: Count | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    batch_max: Annotated[int, Field(ge=1, le=256)] = 8
    batch_wait_ms: NonNegative = 2.0
    queue_max: Count = 64
    time_limit_s: Positive = 20.0
    bytes_max: Count = 20 * 2**20
    pixels_max: Count = 50_000_000
    faces_max: Count = 16
    api_key: SecretStr | None = None
    cors_origins: tuple[str, ...] = ()
    tick_s: Positive = 10.0
    watch_drift: bool = True
    track: bool = False

    @field_validator("api_key")
    @classmethod
    def _require_sendable(cls, key: SecretStr | None) -> SecretStr | None:
        """Take off the white space around a key, such as the newline at the end of a file that holds it."""
        if key is None:
            return None
        text = key.get_secret_value().strip()
        if not text:
            raise ValueError("it is set but empty; unset it to serve without a key")
        if not re.fullmatch(r"[!-~]+", text):
            raise ValueError("clients send it in a header: use ASCII letters, digits and signs, without spaces")
        if len(text) < KEY_MIN:
            raise ValueError(f"it has {len(text)} characters; use {KEY_MIN} at least")
        return SecretStr(text)

    @field_validator("root_path")
    @classmethod
    def _require_prefix(cls, path: str) -> str:
        path = path.rstrip("/")
        if path and not PREFIX.fullmatch(path):
            raise ValueError('expected a path such as "/faces"')
        return path

    @field_validator("p99_ms")
    @classmethod
    def _require_both(cls, budget_ms: float | None, info: ValidationInfo) -> float | None:
        if (budget_ms is None) != (info.data.get("better_model") is None):
            raise ValueError("give it with --better-model, or neither")
        return budget_ms

    @field_validator("devices", mode="before")
    @classmethod
    def _find_gpus(cls, wanted: object, info: ValidationInfo) -> object:
        """Look for the GPUs of a list of numbers, or for all."""
        if not isinstance(wanted, str):
            return wanted
        runtime = info.data.get("runtime", "auto")
        if runtime == "cpu" or (runtime in RUNTIMES and not RUNTIMES[runtime].on_gpu):
            raise ValueError(f"--runtime {runtime} runs on the processor; leave one of the two out")
        if wanted != "all" and not re.fullmatch(r"\d+(,\d+)*", wanted, re.ASCII):
            raise ValueError('expected "all" or numbers such as "0,1"')
        names = visible_gpus()
        numbers = list(range(len(names))) if wanted == "all" else [int(number) for number in wanted.split(",")]
        if len(set(numbers)) < len(numbers):
            raise ValueError("a GPU is listed twice; --workers is how many run on each")
        if not names:
            raise ValueError("there is no NVIDIA GPU here, or no driver for it; leave it out to use the processor")
        if unknown := [number for number in numbers if number >= len(names)]:
            raise ValueError(f"there is no GPU {unknown[0]}; those here are numbered 0 to {len(names) - 1}")
        return tuple(Gpu(number, names[number]) for number in numbers)

    @property
    def network_runtime(self) -> str:
        """What the network is opened with, see `leanface.reconstruction.LeanFace.load`: given devices, no processor."""
        return "gpu" if self.devices and self.runtime == "auto" else self.runtime

    @property
    def places(self) -> tuple[Gpu | None, ...]:
        """The GPU of each worker; None: what the runtime takes by itself."""
        return (self.devices or (None,)) * self.workers

    @classmethod
    def given(cls, values: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Self:
        """Check the command line's values, and the key in the environment.

        Raises:
            ConfigError: a value is out of range.
        """
        key = environment.get(API_KEY)
        try:
            return cls.model_validate({**values, **({} if key is None else {"api_key": key})})
        except ValidationError as error:  # without the values: one is a secret
            wrong = [f"{_source(str(e['loc'][0]))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
            raise ConfigError("; ".join(wrong)) from None


def _source(name: str) -> str:
    """Say where a setting comes from."""
    return API_KEY if name == "api_key" else f"--{name.replace('_', '-')}"
