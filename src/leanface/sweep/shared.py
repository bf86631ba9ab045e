"""What the machines of a cluster must share to run one sweep: the project's folder, and DVC's cache."""

import os
from pathlib import Path

from leanface.errors import ConfigError
from leanface.files import Json, read_json, write_json
from leanface.sweep.experiments import cache_folder
from leanface.sweep.trials import SWEEP_FILE


def share_record(folder: Path, record: Json) -> None:
    """Write a sweep's record where its trials look for it: in its folder, and in the cache."""
    record = {**record, "machine": os.uname().nodename}
    write_json(folder / SWEEP_FILE, record)
    write_json(_probe(folder), record)


def shared_record(folder: Path) -> Json:
    """Return a sweep's record, as a trial sees it on its machine.

    Raises:
        ConfigError: this machine does not share what it must with the one that started the sweep.
    """
    here = os.uname().nodename
    if not (folder / SWEEP_FILE).is_file():
        raise ConfigError(
            f"{here} does not see {folder / SWEEP_FILE}, which the machine that started this sweep has written: all "
            f"must share the project's folder ({Path.cwd()})."
        )
    record = read_json(folder / SWEEP_FILE)
    if here != record["machine"]:
        probe = _probe(folder)
        if not probe.is_file() or read_json(probe) != record:
            raise ConfigError(
                f"{here} does not share DVC's cache with {record['machine']}: {probe} is missing, or of another sweep. "
                "Results would stay here. `dvc cache dir` must name a folder that all machines share."
            )
    return record


def _probe(folder: Path) -> Path:
    return cache_folder() / f"leanface-{folder.name}.json"
