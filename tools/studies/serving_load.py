"""`python -m tools.studies load`: how long requests take at a given rate, and at which rate the service saturates.

Requests come at random times, as from many independent clients (Poisson), whether earlier ones were answered or not,
and latency counts from the moment at which a request was due: a client that waits for its answer before it asks again
would hide every queue.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from leanface.device import describe_device
from leanface.errors import BackendError
from leanface.files import atomic_write, write_json

START_SECONDS = 90.0
LOST_MAX = 0.01
"""Share of requests without a face that a sustained rate may have."""

KEPT_UP = 0.9
"""Of a sustained rate, how much must be answered by the time that the last answer comes."""

PATIENCE_SECONDS = 60.0

FACES = 'leanface_faces_total{network="'


@dataclass(frozen=True)
class Load:
    """What one offered rate gave.

    Attributes:
        offered: requests per second.
        answered: with a face, per second, until the last answer.
        refused: share answered with 429 or 503.
        failed: share answered otherwise, or not at all.
        p50_ms: of those answered with a face; None if there are none.
        batch: photos read together, on average.
        networks: shares of the faces, by the file name of the network that read them.
    """

    offered: float
    requests: int
    answered: float
    refused: float
    failed: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    batch: float | None
    networks: dict[str, float]

    @property
    def sustained(self) -> bool:
        """Nearly every request was answered, and not only after the others had stopped."""
        return self.refused + self.failed <= LOST_MAX and self.answered >= KEPT_UP * self.offered


class _Reply(NamedTuple):
    status: int
    latency_ms: float


def measure(url: str, photo: bytes, rates: Sequence[float], seconds: float, key: str | None = None) -> list[Load]:
    """Offer each rate (requests per second) for so long, one after the other, after some requests to warm up.

    Raises:
        BackendError: the service does not read the photo.
    """
    for _ in range(3):
        try:
            _ask(f"{url}/v1/reconstruct", key, photo)
        except urllib.error.HTTPError as error:
            raise BackendError(f"{url} does not read the photo: {error.read().decode(errors='replace')}") from None
        except OSError as error:
            raise BackendError(f"{url} does not answer: {error}") from None
    request = _request(url, photo, key)
    return [_offer(url, request, rate, seconds, key) for rate in rates]


@contextlib.contextmanager
def own_service(options: Sequence[str]) -> Generator[str]:
    """A `leanface serve` of these options on a free port of the loopback interface; its URL.

    Raises:
        BackendError: it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "leanface", "serve", "--port", str(port), "--no-drift", *options]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, env={k: v for k, v in os.environ.items() if k != "LEANFACE_API_KEY"})
    try:
        until = time.monotonic() + START_SECONDS
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > until:
                raise BackendError(f"the service did not start: {' '.join(command)}")
            time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def record(loads: Sequence[Load], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything as JSON, with the machine that it holds for."""
    return {"device": describe_device(), **settings, "loads": [asdict(load) for load in loads]}


def markdown(loads: Sequence[Load]) -> str:
    """A table, and where the service is saturated."""
    lines = [
        "| Offered (1/s) | Answered (1/s) | p50 ms | p95 ms | p99 ms | Refused | Failed | Batch |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for load in loads:
        times = " | ".join(
            "-" if value is None else f"{value:.0f}" for value in (load.p50_ms, load.p95_ms, load.p99_ms)
        )
        batch = "-" if load.batch is None else f"{load.batch:.1f}"
        shares = f"{load.refused:.0%} | {load.failed:.0%}"
        lines.append(f"| {load.offered:g} | {load.answered:.1f} | {times} | {shares} | {batch} |")
    sustained = [load.offered for load in loads if load.sustained]
    most = max((load.answered for load in loads), default=0.0)
    lines += [
        "",
        f"Sustained: {max(sustained, default=0):g} requests per second; the most that was answered: {most:.1f}.",
    ]
    return "\n".join(lines) + "\n"


def _offer(url: str, request: bytes, rate: float, seconds: float, key: str | None) -> Load:
    count = max(1, round(rate * seconds))
    due = np.cumsum(np.random.default_rng(0).exponential(size=count))
    due *= seconds / due[-1]
    before = _counters(url, key)
    start = time.perf_counter()
    replies = asyncio.run(_all(url, request, start + due))
    duration = time.perf_counter() - start
    added = {name: value - before.get(name, 0.0) for name, value in _counters(url, key).items()}
    statuses = Counter(reply.status for reply in replies)
    times = [reply.latency_ms for reply in replies if reply.status == 200]
    refused = statuses[429] + statuses[503]
    p50, p95, p99 = (float(value) for value in np.percentile(times, (50, 95, 99))) if times else (None, None, None)
    photos = added["leanface_batch_size_count"]
    faces = {name[len(FACES) : -2]: count for name, count in added.items() if name.startswith(FACES) and count}
    return Load(
        rate,
        count,
        len(times) / duration,
        refused / count,
        (count - len(times) - refused) / count,
        p50,
        p95,
        p99,
        added["leanface_batch_size_sum"] / photos if photos else None,
        {name: count / sum(faces.values()) for name, count in faces.items()},
    )


async def _all(url: str, request: bytes, due: np.ndarray) -> list[_Reply]:
    return await asyncio.gather(*(_send(url, request, float(moment)) for moment in due))


async def _send(url: str, request: bytes, due: float) -> _Reply:
    """One request on a connection of its own; status 0 if it broke."""
    await asyncio.sleep(due - time.perf_counter())
    status = 0
    place = urlsplit(url)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            try:
                writer.write(request)
                answer = await reader.read()
                status = int(answer.split(b" ", 2)[1])
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, IndexError):
        pass
    return _Reply(status, 1000 * (time.perf_counter() - due))


def _request(url: str, photo: bytes, key: str | None) -> bytes:
    lines = ["POST /v1/reconstruct HTTP/1.1", f"host: {urlsplit(url).netloc}", "connection: close"]
    lines += [f"content-length: {len(photo)}", *([f"x-api-key: {key}"] if key else [])]
    return "\r\n".join([*lines, "", ""]).encode() + photo


def _counters(url: str, key: str | None) -> dict[str, float]:
    """What the service counts, by name and labels."""
    lines = [line for line in _ask(f"{url}/metrics", key).decode().splitlines() if line[:1] != "#"]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def _is_ready(url: str) -> bool:
    with contextlib.suppress(OSError):
        _ask(f"{url}/readyz", None)
        return True
    return False


def _ask(url: str, key: str | None, body: bytes | None = None) -> bytes:
    """The answer's body; never by way of a proxy, which knows another loopback interface."""
    request = urllib.request.Request(url, body, {"x-api-key": key} if key else {})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=PATIENCE_SECONDS) as reply:
        return reply.read()


def save(folder: Path, loads: Sequence[Load], settings: dict[str, Any]) -> None:
    """Write load.json and load.md."""
    write_json(folder / "load.json", record(loads, settings))
    atomic_write(folder / "load.md", markdown(loads))
