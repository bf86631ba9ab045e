"""Spares DVC most of its reading of YAML, which it parses in pure Python, the same text again and again.

It rewrites dvc.lock after each of the 23 stages, reading first what it has just written, and reads the configuration
for each parameter of each stage. What is read and written stays the same.
"""

import contextlib
import copy
import functools
from collections.abc import Generator
from pathlib import Path
from typing import Any

from dvc import dvcfile
from dvc.utils.serialize import _yaml  # pyright: ignore[reportPrivateUsage]

dvc_yaml: Any = _yaml  # has no types


def remember() -> None:
    """From now on, and in this process, parse no text twice."""
    parse = dvc_yaml.parse_yaml
    parsed = functools.cache(parse)

    def parse_yaml(text: str, path: str, typ: str = "safe") -> Any:
        # What keeps comments ("rt") takes as long to copy as to parse.
        return copy.deepcopy(parsed(text, path)) if typ == "safe" else parse(text, path, typ)

    dvc_yaml.parse_yaml = parse_yaml
    dvcfile.modify_yaml = Rewriter().modify


class Rewriter:
    """Remembers what it has written to each file."""

    def __init__(self) -> None:
        self.written: dict[Path, tuple[str, Any]] = {}

    @contextlib.contextmanager
    def modify(self, path: str, fs: Any = None) -> Generator[Any]:
        """As DVC's `modify_yaml`: what the file says, to be changed and written back."""
        file = Path(path)
        text = file.read_text() if file.is_file() else ""
        known, data = self.written.pop(file, (None, None))
        if text != known:
            data = dvc_yaml.parse_yaml(text, path, "rt")
        yield data
        dvc_yaml.dump_yaml(path, data, fs)
        self.written[file] = file.read_text(), data
