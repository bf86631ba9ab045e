"""Compress one network: name its task in params.yaml, and let DVC run what is due."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from leanface import bundle, paths
from leanface.composition import Composer
from leanface.errors import LeanFaceError
from leanface.files import atomic_write, read_text
from leanface.inputs import record_inputs
from leanface.networks.graph import trace
from leanface.params import read_params
from leanface.task import adapt, network_of


def compress(network: str) -> None:
    """Run the pipeline for a task, or for the network in a bundle; params.yaml says from then on which.

    Args:
        network: a task's name, FILE.py:CLASS, or a bundle's folder.

    Raises:
        ConfigError: the task or the configuration that comes out is not valid; nothing was changed.
        ArtifactError: the bundle cannot be read; nothing was changed.
        NetworkError: the network has operations that cannot be compressed; nothing was changed.
        LeanFaceError: the pipeline failed.
    """
    folder = Path(network)
    changes: dict[str, Any] = {"task": _from_root(network)}
    if folder.is_dir():
        changes = {
            "task": bundle.load_spec(folder).task,
            "teacher": {"source": "checkpoint", "path": _from_root(network)},
        }
    config = Composer(paths.CONF).compose(read_params(paths.PARAMS) | changes, f"leanface compress {network}")
    task = adapt(record_inputs(config, paths.CONFIG)).task
    trace(network_of(task.name, task.name_sha256).build())
    _write(changes)
    command = [sys.executable, "-P", "-m", "dvc", "repro"]
    if subprocess.run(command, env=os.environ | {"PYTHONSAFEPATH": "1"}, check=False).returncode:
        raise LeanFaceError("the pipeline did not finish, see above; `dvc repro` goes on from there.")


def _from_root(network: str) -> str:
    """Write a path in the project as params.yaml should have it: the same for whoever clones the project."""
    root = f"{Path.cwd().resolve()}/"
    return network.removeprefix(root)


def _write(changes: dict[str, Any]) -> None:
    """Change keys of params.yaml, and leave its comments as they are."""
    yaml: Any = YAML()
    yaml.preserve_quotes = True
    tree: Any = yaml.load(read_text(paths.PARAMS))
    tree.update(changes)
    text = io.StringIO()
    yaml.dump(tree, text)
    atomic_write(paths.PARAMS, text.getvalue())
