"""A Ray cluster of two nodes with addresses and /tmp of their own: nothing is shared but what travels through Ray."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from leanface import paths
from leanface.sweep.app import main
from leanface.sweep.experiments import cache_folder, cached_file, read_text, read_tree
from leanface.sweep.trials import read_trials

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

BRIDGE, HEAD, PORT = "leanface0", "10.211.77.1", 6399
"""An address that no other network has, as far as can be told."""

IMPATIENT = {
    "health_check_timeout_ms": "3000",
    "health_check_period_ms": "1000",
    "health_check_failure_threshold": "3",
    "grpc_client_keepalive_time_ms": "10000",
    "grpc_client_keepalive_timeout_ms": "10000",
}
"""Settings of Ray's by which a dead node is missed in ten seconds in place of a minute, and a call in twenty."""


def sh(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True)


class Node:
    """A raylet in a network namespace, with a /tmp of its own, where the project's folder is not."""

    def __init__(self, number: int) -> None:
        self.name, self.link, address = f"leanface-node{number}", f"lf{number}", f"10.211.77.{number + 1}"
        sh(f"ip netns add {self.name} && ip link add lf{number} type veth peer name lf{number}p")
        sh(f"ip link set lf{number} master {BRIDGE} up && ip link set lf{number}p netns {self.name}")
        for what in (f"addr add {address}/24 dev lf{number}p", f"link set lf{number}p up", "link set lo up"):
            sh(f"ip -n {self.name} {what}")
        start = f"ray start --address {HEAD}:{PORT} --node-ip-address {address} --num-cpus 1 --block"
        script = f"mount -t tmpfs tmpfs /tmp && cd /tmp && taskset -c {(number - 1) % (os.cpu_count() or 1)} {start}"
        command = [
            "ip",
            "netns",
            "exec",
            self.name,
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            script,
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def pids(self) -> list[str]:
        """What runs on it."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        return listed.stdout.split()

    def runs(self, command: str) -> bool:
        """Tell whether such a command runs on it."""
        lines = (Path(f"/proc/{pid}/cmdline") for pid in self.pids())
        return any(command in line.read_text().replace("\0", " ") for line in lines if line.exists())

    def kill(self) -> None:
        """End it with all that runs on it, as a power cut does."""
        subprocess.run(["kill", "-9", *self.pids()], check=False, capture_output=True)
        self.process.kill()
        self.process.wait()
        for what in (["link", "del", self.link], ["netns", "del", self.name]):
            subprocess.run(["ip", *what], check=False, capture_output=True)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Node]]:
    """A head without cores, which nodes join."""
    if sys.platform != "linux" or os.getuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need Linux, root and iproute2")
    try:
        sh(f"ip link add {BRIDGE} type bridge && ip addr add {HEAD}/24 dev {BRIDGE} && ip link set {BRIDGE} up")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for name, value in IMPATIENT.items():
        monkeypatch.setenv(f"RAY_{name}", value)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with ExitStack() as stack:
        stack.callback(sh, f"ip link del {BRIDGE}")
        temporary = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="lfray"))
        head = subprocess.Popen(
            f"ray start --head --node-ip-address {HEAD} --port {PORT} --num-cpus 0 --include-dashboard false "
            f"--object-store-memory 100000000 --temp-dir {temporary} --block".split(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        stack.callback(_end, head)

        def node(number: int) -> Node:
            started = Node(number)
            stack.callback(started.kill)
            return started

        wait_for_nodes(1)
        yield node


WAIT = """
import sys, time, ray
address, count = sys.argv[1], int(sys.argv[2])
while True:
    try:
        ray.init(address=address, log_to_driver=False)
        break
    except ConnectionError:
        time.sleep(0.5)
while sum(node["Alive"] for node in ray.nodes()) != count:
    time.sleep(0.2)
"""


def wait_for_nodes(count: int) -> None:
    """Until so many are alive, the head among them."""
    command = [sys.executable, "-W", "ignore", "-c", WAIT, f"{HEAD}:{PORT}", str(count)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, 9)
    process.wait()


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def sweep(start: Callable[..., subprocess.Popen[str]], name: str, *arguments: str) -> subprocess.Popen[str]:
    options = ["hydra/launcher=ray", f"hydra.launcher.address={HEAD}:{PORT}", "hydra.launcher.shared_folder=false"]
    return start("-m", *options, f"name={name}", *arguments)


@pytest.fixture
def count(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where stages say that they ran: the only folder that tests and nodes share."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        monkeypatch.setenv("COUNT", f"{folder}/count")
        yield Path(folder)


def test_two_nodes_that_share_nothing_give_what_one_machine_gives(
    toy: Path, count: Path, cluster: Callable[[int], Node], start: Callable[..., subprocess.Popen[str]]
) -> None:
    for number in (1, 2):
        cluster(number)
    wait_for_nodes(3)
    process = sweep(start, "far", "distill.temperature=1,2")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    far = {trial.varied["distill.temperature"]: trial for trial in read_trials("far")}
    assert {trial.status for trial in far.values()} == {"finished"}
    for temperature, trial in far.items():
        assert read_tree(paths.SUMMARY, trial.name)["variants"]["quantized_int8"]["truth_vertex_mm"] == trial.values[0]
        file = cached_file(Path("distill.txt"), read_text(Path("dvc.lock"), trial.name), cache_folder())
        assert file is not None
        assert file.read_text() == f"0.5 {temperature}"
    before = (count / "count").read_text().split().count("distill")
    references = subprocess.run(
        ["git", "for-each-ref", "--format=delete %(refname)", "refs/exps"], capture_output=True, check=True
    )
    subprocess.run(["git", "update-ref", "--stdin"], input=references.stdout, check=True)
    shutil.rmtree(cache_folder())
    main(["-m", "distill.temperature=1,2", "name=near"])
    assert (count / "count").read_text().split().count("distill") == before + 2
    near = {trial.varied["distill.temperature"]: trial.values for trial in read_trials("near")}
    assert near == {temperature: trial.values for temperature, trial in far.items()}


def test_a_killed_node_costs_its_trials_current_stage_and_nothing_else(
    toy: Path, count: Path, cluster: Callable[[int], Node], start: Callable[..., subprocess.Popen[str]]
) -> None:
    nodes = [cluster(number) for number in (1, 2)]
    wait_for_nodes(3)
    process = sweep(start, "killed", "distill.temperature=98,1")  # at 98 distill never ends when it is run first
    ran = count / "count"
    until(lambda: (count / "asleep-0.5").exists())
    until(lambda: len(list(cache_folder().glob("runs/*/*/*"))) >= 3)  # what it had done before came home
    until(lambda: "report" in ran.read_text())  # the other trial is over
    before = Counter(ran.read_text().split())
    next(node for node in nodes if node.runs("stage.py distill")).kill()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert {trial.status for trial in read_trials("killed")} == {"finished"}
    after = Counter(ran.read_text().split()) - before
    assert after["teacher"] == after["prune"] == 0
