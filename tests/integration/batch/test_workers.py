"""Two workers of a Ray cluster on this machine: all photos are done once, also if a worker is killed."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from leanface.batch.command import run
from leanface.batch.storage import Storage
from leanface.batch.table import finished
from leanface.cluster import joined
from leanface.errors import ArtifactError, ConfigError
from leanface.photos.load import load_photo
from leanface.reconstruction.outputs import Settings
from tests.servers import free_port

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]  # on a busy machine Ray takes minutes

NUMBERS = Settings(mesh=None, texture_px=0, pictures=False)
PHOTOS = 48


@pytest.fixture(scope="module")
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where workers put what they need for a moment."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(temporary_files: Path) -> Iterator[str]:
    """A cluster of this machine, with two cores whatever it has, as it is reached from elsewhere."""
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_raylet_start_wait_time_s", "120")
        environment.setenv("RAY_AUTH_MODE", "disabled")  # whoever has loaded Ray before is not asked again
        port, client_port = (free_port() for _ in range(2))
        temporary = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="lfray"))
        head = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--node-ip-address", "127.0.0.1",
                f"--port={port}", f"--ray-client-server-port={client_port}", f"--temp-dir={temporary}", "--num-cpus=2",
                "--include-dashboard=false", "--object-store-memory=100000000", "--block",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"TMPDIR": str(temporary_files)},
        )  # fmt: skip
        stack.callback(_end, head)
        address, end = f"ray://127.0.0.1:{client_port}", time.monotonic() + 200
        while True:
            try:
                stack.enter_context(joined(address))
                break
            except ConfigError:
                assert head.poll() is None
                assert time.monotonic() < end
        yield address


def _end(head: "subprocess.Popen[bytes]") -> None:
    processes = psutil.Process(head.pid).children(recursive=True)
    os.killpg(head.pid, signal.SIGKILL)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()


@pytest.fixture
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One face in many photos, and one file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    face = Image.fromarray(load_photo("astronaut")).crop((130, 0, 330, 200))
    for number in range(PHOTOS):
        face.save(folder / f"{number}.png")
    (folder / "bad.jpg").write_bytes(b"no photo")
    return folder.as_uri()


def workers() -> list[psutil.Process]:
    processes = psutil.Process().children(recursive=True)
    return [each for each in processes if any("MapWorker" in part for part in each.cmdline())]


def test_a_killed_worker_loses_and_leaves_nothing(
    address: str,
    photos: str,
    temporary_files: Path,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = tmp_path_factory.mktemp("out").as_uri()
    out, killed = Storage(place), list[int]()

    def left() -> list[Path]:
        return list(temporary_files.glob("*leanface*"))

    def kill() -> None:
        """End one of the two as soon as anything is finished."""
        while not out.names("faces"):
            time.sleep(0.02)
        victim = workers()[0]
        while not left():  # it may be between two chunks
            time.sleep(0.002)
        victim.kill()
        killed.extend([victim.pid, len(finished(out))])

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with pytest.raises(ArtifactError, match=f"^1 of {PHOTOS + 1} photos could not be reconstructed"):
        run([photos], place, NUMBERS, runtime="cpu", cluster=address, chunk=2)
    thread.join()
    assert killed[1] < PHOTOS
    assert len(finished(out)) == PHOTOS
    assert "bad.jpg: cannot read bad.jpg" in caplog.text
    assert out.names("heads") == []

    caplog.clear()
    caplog.set_level(logging.INFO)
    times = {name: out._files.modified(out.path(name)) for name in out.names("faces")}
    with pytest.raises(ArtifactError, match=r"^1 of 1 photos could not"):
        run([photos], place, NUMBERS, runtime="cpu", cluster=address, chunk=2)
    assert f"0 faces in 0 photos, {PHOTOS} photos done before" in caplog.text
    assert {name: out._files.modified(out.path(name)) for name in out.names("faces")} == times
    assert left() == []


def test_what_no_machine_has_is_said_before_anything_is_done(
    address: str, photos: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("out").as_uri()
    with pytest.raises(ConfigError, match=r"takes 3 CPUs .*no machine has that: 2 CPUs and 0 GPUs"):
        run([photos], place, NUMBERS, runtime="cpu", cluster=address, threads=3)
    with pytest.raises(ArtifactError, match="there is no network at"):
        run([photos], place, NUMBERS, model=Path("none.onnx"))
    assert finished(Storage(place)).size == 0
