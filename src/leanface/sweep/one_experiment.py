"""`dvc exp run --temp` beside others of its kind.

`python -m leanface.sweep.one_experiment NAME OVERRIDES...` does what `dvc exp run --temp -n NAME -S OVERRIDE...` does,
but for two things by which experiments get into each other's way:

DVC hands an experiment on to the process that runs it through a stash that all share, and a process that has run its
own goes on with whatever lies there (`WorkspaceQueue.reproduce` in dvc/repo/experiments/queue/workspace.py). One that
ends while another starts takes that one's experiment from it, or runs it a second time. Here each has its own stash.

DVC gives up after three seconds if the repository is locked, also at the end of an experiment that ran for hours;
another one that starts has it locked for longer. Here it waits.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.queue.tempdir import TempDirQueue
from dvc.ui import ui

from leanface.sweep import dvc_yaml


class OwnQueue(TempDirQueue):
    """A queue of one experiment, apart from the one that all share."""

    def __init__(self, repo: Repo, name: str) -> None:
        super().__init__(repo, f"refs/leanface/{name}")  # outside of refs/exps/, where DVC takes all for experiments

    def put(self, *args: Any, **kwargs: Any) -> Any:
        """As DVC's, without what a process left that was killed before it could start."""
        self.clear()
        return super().put(*args, **kwargs)


def main(arguments: Sequence[str]) -> int:
    """Run it; returns an exit status."""
    name, *overrides = arguments
    dvc_yaml.remember()
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
