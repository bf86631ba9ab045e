"""params.yaml: what an experiment changes, told apart into choices of conf/'s groups and single values.

A scalar at `a.b` chooses conf/a/b/SCALAR.yaml where conf/a/b/ is a folder (`scale: tiny`); everything else
replaces one value (`prune: {ratio: 0.3}`).
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from pydantic import BaseModel

from leanface.config import Config
from leanface.errors import ConfigError


@dataclass(frozen=True)
class Params:
    """The two kinds of change.

    Attributes:
        choices: file of each chosen group, by the group's path ("prune/importance").
        values: the other keys, nested as in params.yaml.
    """

    choices: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[str, Any] = field(default_factory=dict[str, Any])


def read_params(path: Path, conf: Path) -> Params:
    """Read params.yaml against the groups that `conf` has.

    Raises:
        ConfigError: the file is missing or no mapping, or it has an unknown key or an unknown choice.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: run this from the project's root folder.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not _is_mapping(tree):
        raise ConfigError(f"{path} must be a mapping (`seed: 0`, ...), got {tree!r}")
    params = Params()
    _sort_into(params, params.values, tree, Config, (), path, conf)
    return params


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `changes`, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if _is_mapping(old) and _is_mapping(value) else value
    return merged


def _sort_into(
    params: Params,
    values: dict[str, Any],
    tree: Mapping[str, Any],
    schema: Any,
    parents: tuple[str, ...],
    path: Path,
    conf: Path,
) -> None:
    fields = schema.model_fields if isinstance(schema, type) and issubclass(schema, BaseModel) else None
    for key, value in tree.items():
        names = (*parents, str(key))
        if fields is not None and key not in fields:
            where = f"section {'.'.join(parents)}" if parents else "the top level"
            raise ConfigError(f"{path}: unknown key {'.'.join(names)}.{_suggest(str(key), fields, where)}")
        group = conf.joinpath(*names)
        if _is_mapping(value):
            inner = fields[key].annotation if fields is not None else None
            _sort_into(params, values.setdefault(key, {}), value, inner, names, path, conf)
        elif group.is_dir():
            options = sorted(file.stem for file in group.glob("*.yaml"))
            if value not in options:
                raise ConfigError(
                    f"{path}: {'.'.join(names)} = {value!r} names no file of {group}/."
                    f"{_suggest(str(value), options, f'{group}/')}"
                )
            params.choices["/".join(names)] = value
        else:
            values[key] = value


def _suggest(given: str, valid: Iterable[str], where: str) -> str:
    options = list(valid)
    close = difflib.get_close_matches(given, options)
    question = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"{question} Valid in {where}: {', '.join(options)}."


def _is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
