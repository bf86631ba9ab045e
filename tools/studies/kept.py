"""Results of a study that takes long: each is measured once and kept in a file, so that a stopped study goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leanface.errors import Unfinished
from leanface.files import Json, read_json, write_json


class Kept:
    """A folder of results, and the time that is left for more."""

    def __init__(self, folder: Path, seconds: float | None) -> None:
        """Take the folder.

        Args:
            seconds: after which nothing more is measured; None: no limit.
        """
        self._folder = folder
        self._end = None if seconds is None else time.monotonic() + seconds

    def get(self, name: str, conditions: Any, measure: Callable[[], Json]) -> Json:
        """Return the result of this name, which is measured if it was not yet under the same conditions.

        Args:
            conditions: what the result depends on, as JSON.

        Raises:
            Unfinished: it has to be measured, and the time is over.
        """
        file = self._folder / f"{name}.json"
        if file.is_file() and (found := read_json(file))["conditions"] == conditions:
            return found["result"]
        if self._end is not None and time.monotonic() > self._end:
            raise Unfinished(f"the time was over before {name}; run the same command again to go on.")
        result = measure()
        write_json(file, {"conditions": conditions, "result": result})
        return result
