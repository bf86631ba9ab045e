"""The service's metrics for Prometheus."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pynvml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from leanface.monitoring.monitor import Event, Report
from leanface.serving.messages import Answer
from leanface.serving.settings import Gpu

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts what happens in one service. Any thread may count."""

    def __init__(
        self, queue_length: Callable[[], int], ready: Callable[[], set[int]], places: Sequence[Gpu | None]
    ) -> None:
        """Read the gauges of the queue and the workers when Prometheus asks."""
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "leanface_requests",
            "Answered requests, by outcome: ok, or the kind of error",
            ["outcome"],
            registry=registry,
        )
        self._steps = Histogram(
            "leanface_step_seconds",
            "Duration of each step; total: whole requests",
            ["step"],
            buckets=SECONDS,
            registry=registry,
        )
        self._batch = Histogram(
            "leanface_batch_size", "Photos that were read together", buckets=BATCHES, registry=registry
        )
        self._faces = Counter("leanface_faces", "Faces that were read", ["network"], registry=registry)
        self._restarts = Counter(
            "leanface_worker_restarts", "Workers that were replaced", ["reason"], registry=registry
        )
        self._memory = Gauge("leanface_worker_memory_bytes", "Resident memory", ["worker"], registry=registry)
        self._events = Counter("leanface_events", "Events of the monitor, by series", ["series"], registry=registry)
        self._drift = Gauge(
            "leanface_drift", "Kolmogorov-Smirnov distance to the training", ["feature"], registry=registry
        )
        self._drift_limit = Gauge("leanface_drift_limit", "Largest distance by chance", registry=registry)
        self._rolling = Gauge("leanface_rolling", "Requests of the monitor's last tick", ["series"], registry=registry)
        Gauge("leanface_queue_length", "Photos that wait", registry=registry).set_function(queue_length)
        count = Gauge("leanface_workers_ready", "Workers that can read", registry=registry)
        count.set_function(lambda: len(ready()))
        each = Gauge("leanface_worker_ready", "Whether it can read, by its GPU", ["worker", "gpu"], registry=registry)
        for worker, gpu in enumerate(places):
            own = each.labels(str(worker), "" if gpu is None else str(gpu.number))
            own.set_function(lambda worker=worker: worker in ready())
        self._gpus = _gpu_handles()
        if self._gpus:
            self._gpu_memory = Gauge("leanface_gpu_memory_bytes", "Used, by all processes", ["gpu"], registry=registry)
            self._gpu_busy = Gauge("leanface_gpu_utilization", "Share of time at work", ["gpu"], registry=registry)

    def answered(self, answer: Answer, seconds: float) -> None:
        """Count an answered request and the duration of its steps."""
        self._requests.labels(answer.error or "ok").inc()
        for step, duration_ms in answer.steps_ms.items():
            self._steps.labels(step).observe(duration_ms / 1000)
        self._steps.labels("total").observe(seconds)
        if answer.features is not None:
            self._batch.observe(answer.batch)
            self._faces.labels(answer.network).inc(len(answer.features))

    def refused(self, kind: str) -> None:
        """Count a request that was refused at once."""
        self._requests.labels(kind).inc()

    def restarted(self, reason: str) -> None:
        """Count a worker that is replaced."""
        self._restarts.labels(reason).inc()

    def memory(self, worker: int, memory_bytes: int) -> None:
        """Set a worker's memory after its last batch."""
        self._memory.labels(str(worker)).set(memory_bytes)

    def monitored(self, report: Report, events: list[Event]) -> None:
        """Set what the monitor has judged."""
        for event in events:
            self._events.labels(event.series).inc()
        for name in ("p50_ms", "p95_ms", "per_second", "error_rate"):
            value = getattr(report.recent, name)
            self._rolling.labels(name).set(float("nan") if value is None else value)
        for feature, shift in (report.drift or {}).items():
            self._drift.labels(feature).set(shift.ks)
            self._drift_limit.set(shift.limit)

    def exposition(self) -> bytes:
        """Write the text that Prometheus reads."""
        for index, handle in enumerate(self._gpus):
            with contextlib.suppress(pynvml.NVMLError):
                self._gpu_memory.labels(str(index)).set(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used))
                busy: Any = pynvml.nvmlDeviceGetUtilizationRates(handle)
                self._gpu_busy.labels(str(index)).set(busy.gpu / 100)
        return generate_latest(self.registry)


def _gpu_handles() -> list[object]:
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:  # no NVIDIA driver
        return []
