"""Many batches at once, of one caller or of many, on real runtimes: order, back-pressure, errors, a clean end."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from leanface.errors import BackendError
from leanface.runtime import Images, Pool, Runtime, open_runtime, pipelined
from leanface.runtime.base import Coefficients, InputSpec, threads_per_stream

STREAMS = 3


@pytest.fixture(params=["torch", "onnxruntime", "openvino"])
def runtime(request: pytest.FixtureRequest, exported) -> Iterator[Runtime]:
    path = exported.float_bundle if request.param == "torch" else exported.fp32
    with open_runtime(request.param, path, threads=2, streams=STREAMS) as runtime:
        yield runtime


class Gated(Runtime):
    """Answers a batch with its own first value, once the gate is open."""

    name = "gated"
    outputs = 257

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.running: list[int] = []
        return InputSpec()

    def _infer(self, images: Images, stream: int) -> Coefficients:
        assert stream not in self.running
        self.running.append(stream)
        self.started.release()
        self.gate.wait()
        self.running.remove(stream)
        return np.full((len(images), 257), images[0, 0, 0, 0], np.float32)

    def _close(self) -> None: ...


class Begun(Gated):
    """The same, for a pool that begins all batches in one thread."""

    name = "begun"
    is_asynchronous = True

    def _begin(self, images: Images, stream: int) -> Callable[[], Coefficients]:
        assert stream not in self.running
        self.running.append(stream)
        self.started.release()
        value = images[0, 0, 0, 0]

        def wait() -> Coefficients:
            self.gate.wait()
            self.running.remove(stream)
            return np.full((len(images), 257), value, np.float32)

        return wait


@pytest.fixture(params=[Gated, Begun])
def gated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gated]:
    runtime: Gated = request.param(tmp_path, streams=2)
    yield runtime
    runtime.gate.set()


def batch(value: float) -> Images:
    return np.full((1, 3, 64, 64), value, np.float32)


def stream_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "-stream" in thread.name]


def test_results_come_in_order_for_many_callers(runtime: Runtime, images: Tensor) -> None:
    batches = [images[index % 4 : index % 4 + 1 + index % 2].numpy() for index in range(12)]
    expected = [runtime.run(images) for images in batches]

    def results_of_all() -> list[Coefficients]:
        return [future.result() for future in [pool.submit(images) for images in batches]]

    with Pool(runtime) as pool, ThreadPoolExecutor(4) as callers:
        for results in [caller.result() for caller in [callers.submit(results_of_all) for _ in range(4)]]:
            for got, alone in zip(results, expected, strict=True):
                assert np.allclose(got, alone, rtol=1e-3, atol=1e-4)


def test_an_error_in_one_batch_hurts_no_other(runtime: Runtime, images: Tensor) -> None:
    good, bad = images[:1].numpy(), images[:1].numpy().astype(np.float64)
    expected = runtime.run(good)
    with Pool(runtime) as pool:
        futures = [pool.submit(bad if index % 3 == 1 else good) for index in range(12)]
        for index, future in enumerate(futures):
            if index % 3 == 1:
                assert isinstance(future.exception(), BackendError)
            else:
                assert np.allclose(future.result(), expected, rtol=1e-3, atol=1e-4)


def test_pipelined_results_come_in_order(runtime: Runtime, images: Tensor) -> None:
    batches = [images[index % 4 : index % 4 + 1 + index % 2].numpy() for index in range(12)]
    expected = [runtime.run(images) for images in batches]
    for got, alone in zip(pipelined(runtime, iter(batches)), expected, strict=True):
        assert np.allclose(got, alone, rtol=1e-3, atol=1e-4)
    assert list(pipelined(runtime, [])) == []


def test_a_failed_batch_ends_the_pipeline_at_its_place(gated: Gated) -> None:
    gated.gate.set()
    got: list[float] = []
    with pytest.raises(BackendError, match="float64"):
        got.extend(
            one[0, 0] for one in pipelined(gated, [*map(batch, range(3)), batch(3).astype(np.float64), batch(4)])
        )
    assert got == [0, 1, 2]
    assert not gated.running
    assert gated.run(batch(5))[0, 0] == 5
    assert not stream_threads()


def test_closing_finishes_what_was_accepted_and_leaves_no_thread(runtime: Runtime, images: Tensor) -> None:
    pool = Pool(runtime)
    futures = [pool.submit(images[:1].numpy()) for _ in range(8)]
    assert stream_threads()
    pool.close()
    pool.close()
    assert all(future.done() for future in futures)
    assert all(future.result().shape == (1, 257) for future in futures)
    assert not stream_threads()
    with pytest.raises(BackendError, match="closed"):
        pool.submit(images[:1].numpy())
    assert runtime.run(images[:1].numpy()).shape == (1, 257)


def test_each_stream_runs_one_batch_at_a_time_and_all_run_at_once(gated: Gated) -> None:
    with Pool(gated, waiting=4) as pool:
        futures = [pool.submit(batch(value)) for value in range(6)]
        for _ in range(2):
            assert gated.started.acquire(timeout=60)
        assert sorted(gated.running) == [0, 1]
        gated.gate.set()
        assert [future.result()[0, 0] for future in futures] == list(range(6))


def test_a_batch_that_cannot_begin_hurts_no_other(tmp_path: Path) -> None:
    runtime = Begun(tmp_path, streams=2)
    runtime.gate.set()
    with Pool(runtime) as pool:
        futures = [pool.submit(batch(value) if value % 3 else batch(value).astype(np.float64)) for value in range(12)]
        for value, future in enumerate(futures):
            if value % 3:
                assert future.result()[0, 0] == value
            else:
                assert isinstance(future.exception(), BackendError)


def test_no_more_is_accepted_than_there_is_room_for(gated: Gated) -> None:
    with Pool(gated, waiting=1) as pool, ThreadPoolExecutor(1) as caller:
        assert pool.room == 3
        accepted = [pool.submit(batch(value)) for value in range(3)]
        fourth: Future[Future[Coefficients]] = caller.submit(pool.submit, batch(3))
        for _ in range(2):
            assert gated.started.acquire(timeout=60)
        assert not fourth.done()  # nothing has ended, so it must still be waiting
        gated.gate.set()
        assert [future.result()[0, 0] for future in (*accepted, fourth.result())] == [0, 1, 2, 3]


def test_a_pipeline_reads_few_batches_ahead_and_may_be_left(gated: Gated) -> None:
    read: list[int] = []

    def batches() -> Iterator[Images]:
        for value in range(100):
            read.append(value)
            yield batch(value)

    gated.gate.set()
    results = pipelined(gated, batches())
    assert next(results)[0, 0] == 0
    assert len(read) <= 2 * gated.streams + 1
    results.close()
    assert len(read) <= 2 * gated.streams + 1
    assert not gated.running


def test_closing_with_cancel_drops_what_has_not_started(gated: Gated) -> None:
    pool = Pool(gated, waiting=2)
    futures = [pool.submit(batch(value)) for value in range(4)]
    for _ in range(2):
        assert gated.started.acquire(timeout=60)
    closing = threading.Thread(target=pool.close, kwargs={"cancel": True})
    closing.start()
    with pytest.raises(CancelledError):
        futures[3].result()
    gated.gate.set()
    closing.join()
    assert [future.result()[0, 0] for future in futures[:2]] == [0, 1]
    assert all(future.cancelled() for future in futures[2:])
    assert not stream_threads()


def test_a_caller_that_waits_for_room_learns_of_the_end(gated: Gated) -> None:
    pool = Pool(gated, waiting=0)
    for value in range(2):
        pool.submit(batch(value))
    with ThreadPoolExecutor(2) as callers:
        waiting = callers.submit(pool.submit, batch(2))
        for _ in range(2):
            assert gated.started.acquire(timeout=60)
        closing = callers.submit(pool.close)
        gated.gate.set()
        closing.result()
        error = waiting.exception()
        assert isinstance(error, BackendError) or waiting.result().done()  # whichever of the two came first


@pytest.mark.parametrize(
    ("threads", "streams", "share"), [(0, 1, 0), (4, 1, 4), (4, 2, 2), (4, 3, 1), (2, 4, 1), (1, 1, 1)]
)
def test_threads_are_divided_among_the_streams(threads: int, streams: int, share: int) -> None:
    assert threads_per_stream(threads, streams) == share


def test_a_choice_left_to_the_runtime_is_divided_too() -> None:
    assert threads_per_stream(0, 10_000) == 1
