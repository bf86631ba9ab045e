"""Ask DVC for what its command line cannot say: to take results for made here."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from leanface.errors import ArtifactError


def commit(stages: Iterable[str]) -> None:
    """Take what lies in the workspace for these stages' results.

    Raises:
        ArtifactError: DVC refuses; with its reason.
    """
    _call("commit", stages, force=True)


def add(paths: Iterable[Path]) -> None:
    """Track files or folders that no stage makes: their .dvc files are for git.

    Raises:
        ArtifactError: DVC refuses; with its reason.
    """
    _call("add", map(str, paths))


def _call(method: str, targets: Iterable[str], **options: Any) -> None:
    try:
        with Repo() as repo:
            for target in targets:
                getattr(repo, method)(target, **options)
    except DvcException as error:
        raise ArtifactError(f"`dvc {method}` failed: {error}") from error
