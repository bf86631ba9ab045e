"""`leanface stage` and `leanface track`: what DVC calls, and what it left to be delivered."""

import argparse
from pathlib import Path

from leanface import catalog, paths
from leanface.cli.parser import MAINTAIN, Commands
from leanface.environment import enter_project, find_project


def add_commands(commands: Commands) -> None:
    """Add `stage` and `track`."""
    stage = commands.add(
        "stage",
        MAINTAIN,
        "run one stage of the pipeline; `dvc repro` runs all that are due",
        "leanface stage configure",
        _stage,
    )
    stages = (paths.ASSETS.parent / "stages").glob("[!_]*.py")
    stage.add_argument("name", choices=sorted(path.stem for path in stages))
    stage.add_argument("--variant", choices=catalog.VARIANTS, help="for stages that run once per variant")
    stage.add_argument("--seconds", type=float, help="stop a training, or a benchmark's measuring, after this time")
    track = commands.add(
        "track", MAINTAIN, "deliver to MLflow what it could not take earlier", "leanface track --ui", _track
    )
    track.add_argument("--ui", action="store_true", help="then show the runs in MLflow's pages, until Ctrl-C")


def _stage(arguments: argparse.Namespace) -> None:
    enter_project()
    from leanface.runner import run_stage

    run_stage(arguments.name, arguments.variant, arguments.seconds)


def _track(arguments: argparse.Namespace) -> None:
    # A service records where it was started, which need not be a project.
    if find_project(Path.cwd()) is not None or not (paths.CACHE / "mlflow-outbox").is_dir():
        enter_project()
    from leanface import tracking

    count = tracking.deliver()
    print(f"delivered {count} {'run' if count == 1 else 'runs'} to {tracking.tracking_uri()}")
    if arguments.ui:
        tracking.open_pages()
