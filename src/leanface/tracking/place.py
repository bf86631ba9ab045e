"""Say where runs are kept: which MLflow store, and which folder holds what has not been delivered."""

import os
from pathlib import Path

from leanface import paths
from leanface.environment import find_project


def tracking_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the project's SQLite store (MLflow's own default moves with the cwd)."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_root() / 'mlflow.db'}"


def store_root() -> Path:
    """Return the project's root, also from within the temporary checkouts that DVC runs experiments in.

    Outside of a project it is the current folder.
    """
    here = Path.cwd()
    checkouts = [parent for parent in here.parents if parent.name == ".dvc"]  # PROJECT/.dvc/tmp/exps/...
    return checkouts[-1].parent if checkouts else find_project(here) or here


def cache() -> Path:
    """Return the folder that holds what MLflow has not got yet; see `leanface.tracking.outbox`."""
    return store_root() / paths.CACHE


def database() -> Path | None:
    """Return the file of the store, if the store is an SQLite database in a file."""
    scheme, _, path = tracking_uri().partition(":///")
    path = path.partition("?")[0]
    return Path(path) if scheme.startswith("sqlite") and path not in ("", ":memory:") else None
