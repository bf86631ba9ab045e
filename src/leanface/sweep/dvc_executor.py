"""`dvc exp run --temp` beside others of its kind.

`python -m leanface.sweep.dvc_executor NAME OVERRIDES...` does what `dvc exp run --temp -n NAME -S OVERRIDE...` does,
but for two things by which experiments get into each other's way, and two that take longer than stages from the cache:

DVC hands an experiment on to the process that runs it through a stash that all share, and a process that has run its
own goes on with whatever lies there (`WorkspaceQueue.reproduce` in dvc/repo/experiments/queue/workspace.py). One that
ends while another starts takes that one's experiment from it, or runs it a second time. Here each has its own stash.

DVC gives up after three seconds if the repository is locked, also at the end of an experiment that ran for hours;
another one that starts has it locked for longer. Here it waits.

DVC copies the project's whole history into each checkout, and writes dvc.lock and the index of Git after each stage.
Here a checkout borrows the history, and both are written once.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from configobj import ConfigObj
from dulwich.repo import Repo as GitRepo
from dvc.dvcfile import LOCK_FILE
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.repo.experiments.executor.local import TempDirExecutor
from dvc.repo.experiments.queue.tempdir import TempDirQueue
from dvc.repo.experiments.refs import EXEC_BASELINE, EXEC_HEAD, EXEC_MERGE
from dvc.ui import ui


class Checkout(TempDirExecutor):
    """Where an experiment runs; in this process there is but one."""

    reproduced: ClassVar[list[Any]] = []
    """The stages that dvc.lock does not have yet."""

    def init_git(self, repo: Any, scm: Any, stash_rev: str, entry: Any, *_: Any, **__: Any) -> None:
        """Set up the checkout with its source's objects, as `git clone --shared` does."""
        with GitRepo(scm.root_dir) as source, GitRepo.init(os.fspath(self.root_dir)) as checkout:
            checkout.object_store.add_alternate_path(source.object_store.path)
            # In a shallow clone Git must know where the history ends, or it looks for commits that are not there.
            checkout.update_shallow(source.get_shallow(), None)
        own: Any = self.scm
        own.set_ref(EXEC_BASELINE, entry.baseline_rev)
        own.set_ref(EXEC_HEAD, entry.head_rev)
        own.set_ref(EXEC_MERGE, stash_rev)
        own.checkout(EXEC_HEAD, detach=True)
        own.stash.apply(stash_rev)
        self._update_config(repo.config.read("local"))
        self._update_git_config(ConfigObj(str(Path(scm.root_dir) / ".git/config"), list_values=False))

    def fetch_exps(
        self,
        dest_scm: Any,
        refs: list[str],
        force: bool = False,
        on_diverged: Callable[[str], None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Bring an experiment's commits home with Git itself: DVC's own way removes the marks of a shallow clone.

        Raises:
            DvcException: Git refuses; with what it says.
        """
        command = ["git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", "fetch", "--quiet", "--no-tags"]
        command += ["--no-write-fetch-head", *(["--force"] if force else []), self.git_url]
        done = subprocess.run([*command, *(f"{ref}:{ref}" for ref in refs)], cwd=dest_scm.root_dir,
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            raise DvcException(f"git cannot take the experiment from its checkout: {done.stderr.strip()}")
        return refs

    @staticmethod
    def _repro_and_track(stage: Any, **kwargs: Any) -> Any:
        """Run a stage, unless nothing is to be done."""
        done = stage.reproduce(**kwargs)
        if done:
            Checkout.reproduced.append(done)
            ui.write(f"Stage '{stage.addressing}' is done")
        return done

    @classmethod
    def _get_top_level_paths(cls, repo: Any) -> list[str]:
        """Write dvc.lock; returns what the experiment's commit takes beside the changes of files that Git knows."""
        with lock_repo(repo):
            if cls.reproduced:
                cls.reproduced[0].dvcfile.dump_stages(cls.reproduced, update_pipeline=False)
        kept = [str(out) for stage in cls.reproduced for out in stage.outs if not out.use_cache]
        return [LOCK_FILE, *kept, *super()._get_top_level_paths(repo)]


class OwnQueue(TempDirQueue):
    """A queue of one experiment, apart from the one that all share."""

    def __init__(self, repo: Repo, name: str) -> None:
        super().__init__(repo, f"refs/leanface/{name}")  # outside of refs/exps/, where DVC takes all for experiments

    def put(self, *args: Any, **kwargs: Any) -> Any:
        """Do as DVC does, without what a process left that was killed before it could start."""
        self.clear()
        return super().put(*args, **kwargs)

    @classmethod
    def init_executor(cls, exp: Any, queue_entry: Any, executor_cls: Any = Checkout, **kwargs: Any) -> Any:
        return super().init_executor(exp, queue_entry, Checkout, **kwargs)


def main(arguments: Sequence[str]) -> int:
    """Run it; returns an exit status."""
    name, *overrides = arguments
    ui.enable()
    try:
        with Repo(_wait_for_lock=True) as repo:
            experiments = repo.experiments
            experiments.tempdir_queue = OwnQueue(repo, name)
            experiments.run(name=name, params=overrides, tmp_dir=True)
    except (DvcException, KeyboardInterrupt):
        logging.getLogger("dvc").exception("")  # which prints it as `dvc` does
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
