"""DVC experiments: run one apart from the workspace, and read what it left."""

import collections
import contextlib
import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import psutil
import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo

from leanface import paths
from leanface.device import describe_device
from leanface.errors import ArtifactError, LeanFaceError
from leanface.sweep import dvc_executor, supervise

START_LOCK = Path(".cache/experiment-start.lock")
"""Held while DVC takes an experiment out of the workspace, whose files and commit are another's until it is done."""

SHARED_LOCK = Path(".cache/experiment-shared.lock")
"""Held while an experiment may run stages that others wait for."""

CHECKOUTS = Path(".dvc/tmp/exps/standalone")
"""Where `dvc exp run --temp` works."""

ERROR_LINES = 12

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fast one, where it was compiled."""

_RUNNING = re.compile(r"Running stage '([^'@]+)(?:@[^']+)?'")
_RAN = re.compile(r"Stage '[^']+' (?:is done|is cached|didn't change)")
_REPRODUCING = re.compile(r"Reproducing experiment '")
_REASON = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Killed)\b.*")


class TrialError(LeanFaceError):
    """An experiment failed; the message is the reason in a line or two."""


def run_experiment(
    name: str,
    overrides: Sequence[str],
    *,
    seconds: dict[str, float],
    log: Path,
    environment: Mapping[str, str],
    stop: Path,
    shared: Collection[str] = (),
    show: Callable[[str], None] = print,
) -> None:
    """Run `dvc exp run --temp`, its output in `log` as well; see `dvc_executor`.

    Args:
        seconds: gets what each executed stage took.
        stop: a file; when it appears, the experiment is stopped.
        shared: stages whose result is the same for all experiments that may start meanwhile. These wait until the
            first one has executed them, and take them from the cache.

    Raises:
        TrialError: it failed.
        KeyboardInterrupt: it was stopped.
    """
    command = [sys.executable, "-m", dvc_executor.__name__, name, *overrides]
    # Stages run with this interpreter, also where no environment is active, and in a shell that is one.
    environment = {"LEANFACE_PYTHON": sys.executable, "SHELL": "/bin/sh", **_identity(), **environment}
    log.parent.mkdir(parents=True, exist_ok=True)
    seconds.clear()
    last = collections.deque[str](maxlen=200)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("w"))
        turn = stack.enter_context(contextlib.ExitStack())
        if shared:
            turn.enter_context(_locked(SHARED_LOCK))
        start = stack.enter_context(contextlib.ExitStack())
        start.enter_context(_locked(START_LOCK))
        process = stack.enter_context(_supervised(command, stop, {**os.environ, **environment}))
        assert process.stdout is not None
        stage, since = "", None
        for line in process.stdout:
            output.write(line)
            output.flush()
            show(line.rstrip("\n"))
            last.append(line.rstrip())
            found = _RUNNING.search(line)
            if since is not None and (found or _RAN.match(line)):
                seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - since
                since = None
            if found:
                stage, since = found[1], time.monotonic()
                if stage not in shared:
                    turn.close()
            elif _REPRODUCING.match(line):
                start.close()
        if since is not None:
            seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - since
        code = process.wait()
    if code == supervise.STOPPED:
        raise KeyboardInterrupt
    if code:
        raise TrialError(_reason(stage, last))


def _identity() -> dict[str, str]:
    """Return variables that give experiments' commits an author where Git knows none: DVC refuses without."""
    found: dict[str, str] = {}
    for what, fallback in (("name", "LeanFace"), ("email", "leanface@localhost")):
        if subprocess.run(["git", "config", f"user.{what}"], stdout=subprocess.DEVNULL, check=False).returncode:
            names = [f"GIT_{role}_{what.upper()}" for role in ("AUTHOR", "COMMITTER")]
            found |= {name: fallback for name in names if not os.environ.get(name)}
    return found


def _reason(stage: str, lines: Collection[str]) -> str:
    """Return the error's own words if a line looks like it, else DVC's last ones."""
    said = [line for line in lines if line.strip()]
    errors = [line for line in said if _REASON.match(line)]
    killed = [line for line in said if re.search(r"exited with -9\b|exited with 137\b|\bKilled\b", line)]
    if killed:
        return f"stage {stage} was killed, as the system does when memory is short"
    if errors:
        return f"stage {stage}: {errors[-1]}" if stage else errors[-1]
    return "\n".join(said[-ERROR_LINES:]) or "dvc ended without a word"


@contextlib.contextmanager
def _supervised(command: Sequence[str], stop: Path, environment: Mapping[str, str]) -> Generator[subprocess.Popen[str]]:
    """Run a command that outlives neither the block nor this process; `stop` stops it too."""
    process = subprocess.Popen(
        [sys.executable, "-m", supervise.__name__, str(os.getpid()), str(stop.absolute()), *command],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def clear_leftovers() -> None:
    """Remove the checkouts of experiments that were killed outright, with all who would have cleared up."""
    root = Path.cwd()
    supervise.RUNNING.parent.mkdir(parents=True, exist_ok=True)
    with supervise.RUNNING.open("a") as running:
        try:
            fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # an experiment of a sweep runs, perhaps on another machine
        inside: list[Path] = []
        for process in psutil.process_iter(["cwd", "cmdline"]):
            folder = Path(process.info["cwd"] or "/")
            if folder.is_relative_to(root):
                command: set[str] = set(process.info["cmdline"] or ())
                if {"exp", "run"} <= command or dvc_executor.__name__ in command:
                    return  # one that was started by hand, or has lost its supervisor
                inside.append(folder)
        for checkout in CHECKOUTS.glob("tmp*"):
            if not any(folder.is_relative_to(root / checkout) for folder in inside):
                shutil.rmtree(checkout, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def untouched_workspace() -> Generator[None]:
    """Keep other trials from changing params.yaml, or what else is in the workspace, for their start."""
    with _locked(START_LOCK):
        yield


def project_state() -> str:
    """Return the commit, and what differs from it: an experiment starts from both.

    Raises:
        LeanFaceError: this is no Git repository with a commit, which experiments need.
    """
    return f"{_git('rev-parse', 'HEAD').strip()} {_git('diff', 'HEAD')}"


def experiment_names() -> list[str]:
    """List all experiments, the newest last; one that a sweep took over has two names and is listed by one."""
    lines = _git("for-each-ref", "--sort=committerdate", "--format=%(objectname) %(refname)", "refs/exps/").splitlines()
    names: dict[str, str] = {}
    for commit, ref in (line.split() for line in lines):
        parts = ref.split("/")
        if len(parts) == 5 and len(parts[2]) == 2:  # refs/exps/12/34567.../NAME; what else DVC keeps has another form
            names[commit] = parts[4]
    return list(names.values())


def experiment_revision(name: str) -> str | None:
    """Commit of an experiment, the newest one of that name."""
    refs = _git("for-each-ref", "--sort=-committerdate", "--format=%(objectname)", f"refs/exps/*/*/{name}").split()
    return refs[0] if refs else None


def same_experiment(name: str) -> str | None:
    """Find Git's reference to another sweep's experiment that computed the same on a machine like this one.

    Args:
        name: as `trial_name` makes it, which ends with what the experiment computes.
    """
    computed = name.rpartition("-")[2]
    for ref in _git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/*-{computed}").split():
        try:
            if read_tree(paths.DEVICE, Path(ref).name) == describe_device():
                return ref
        except ArtifactError:
            continue  # it does not say where it was measured
    return None


def take_over(ref: str, name: str) -> None:
    """Give an experiment this name as well."""
    _git("update-ref", f"{Path(ref).parent}/{name}", ref)


def read_text(path: Path, experiment: str) -> str:
    """Read a file that Git keeps, as an experiment left it.

    Raises:
        ArtifactError: there is no such experiment, or the file is not in it.
    """
    revision = experiment_revision(experiment)
    if revision is None:
        raise ArtifactError(
            f"no experiment {experiment!r} is here; `dvc exp show` lists them, `dvc exp pull` fetches them"
        )
    done = subprocess.run(["git", "show", f"{revision}:./{path}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArtifactError(f"experiment {experiment} has no {path}: it did not reach the stage that writes it")
    return done.stdout


def read_tree(path: Path, experiment: str) -> dict[str, Any]:
    """Read a JSON or YAML file that Git keeps, as an experiment left it."""
    text = read_text(path, experiment)
    if path.suffix == ".json":
        return json.loads(text)  # much faster than as YAML
    return yaml.load(text, Loader=LOADER)


def read_texts(path: Path, experiments: Sequence[str]) -> dict[str, str]:
    """Read a file that Git keeps, as experiments left it, by two calls of Git; those that lack it are left out."""
    refs = _git("for-each-ref", "--sort=committerdate", "--format=%(refname:lstrip=4) %(objectname)", "refs/exps/")
    commits = dict(line.split() for line in refs.splitlines() if line.count(" ") == 1)
    asked = [name for name in experiments if name in commits]
    prefix = _git("rev-parse", "--show-prefix").strip()
    lines = "".join(f"{commits[name]}:{prefix}{path}\n" for name in asked)
    command = ["git", "cat-file", "--batch"]
    answer = io.BytesIO(subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout)
    found: dict[str, str] = {}
    for name in asked:
        *_, size = answer.readline().split()
        if size != b"missing":
            found[name] = answer.read(int(size)).decode()
            answer.read(1)  # a line break
    return found


def cached_file(path: Path, lock: str, cache: Path) -> Path | None:
    """Return where DVC's cache has what an experiment left; None if it does not.

    Opening the experiment through DVC takes a second or two, and parsing its dvc.lock as YAML a thousand times as long
    as searching the text.

    Args:
        path: an output of a stage, or a file in one that is a folder.
        lock: the text of the experiment's dvc.lock.
        cache: where DVC keeps results, of `cache_folder`.
    """
    for out in (path, *path.parents):
        if found := re.search(rf"- path: {re.escape(out.as_posix())}\n\s+hash: md5\n\s+md5: (\S+)\n", lock):
            break
    else:
        return None
    file = _in_cache(cache, found[1])
    if found[1].endswith(".dir") and file.is_file():
        inner = path.relative_to(out).as_posix()
        md5 = {entry["relpath"]: entry["md5"] for entry in json.loads(file.read_bytes())}.get(inner)
        file = None if md5 is None else _in_cache(cache, md5)
    return file if file is not None and file.is_file() else None


def _in_cache(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def apply_experiment(name: str) -> None:
    """Bring an experiment's files into the workspace.

    Raises:
        LeanFaceError: DVC refused; with what it said.
    """
    command = [sys.executable, "-m", "dvc", "exp", "apply", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise LeanFaceError(f"dvc exp apply {name} failed:\n{done.stdout.strip()}")


def cache_folder() -> Path:
    """Return where DVC keeps results on this machine."""
    with _repository() as repo:
        return Path(str(cast(Any, repo.cache).local_cache_dir))


def _repository() -> Repo:
    try:
        return Repo()
    except DvcException as error:
        raise LeanFaceError(f"DVC: {error}") from None


class Stages:
    """The stages of dvc.yaml: which sections of the configuration each one depends on, also through others."""

    def __init__(self) -> None:
        """Read dvc.yaml through DVC.

        Raises:
            LeanFaceError: DVC cannot; with what it says.
        """
        self.sections: dict[str, set[str]] = {}
        with _repository() as repo:
            graph: Any = cast(Any, repo.index).graph  # from each stage to those that it depends on
            own = {stage.name: self._own_sections(stage) for stage in graph}
            for stage in graph:
                below, waiting = {stage}, [stage]
                while waiting:
                    for other in graph.successors(waiting.pop()):
                        if other not in below:
                            below.add(other)
                            waiting.append(other)
                name = stage.name.partition("@")[0]
                self.sections.setdefault(name, set()).update(*(own[other.name] for other in below))

    @staticmethod
    def _own_sections(stage: Any) -> set[str]:
        found = set[str]()
        for dep in stage.deps:
            if Path(str(dep.def_path)) == paths.CONFIG:
                found.update(getattr(dep, "params", []))
        return found

    def shared(self, keys: Collection[str]) -> set[str]:
        """List stages whose result does not depend on these keys of params.yaml; configure and probe always run."""
        if any(key.startswith("scale") for key in keys):
            return {"configure", "probe"}
        varied = {key.split(".")[0].split("/")[0] for key in keys}
        return {name for name, sections in self.sections.items() if not sections & varied}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LeanFaceError(
            f"git {' '.join(arguments)} failed: {done.stderr.strip()}\nSweeps need a Git repository with a commit; "
            "run this in a clone of the project."
        )
    return done.stdout
