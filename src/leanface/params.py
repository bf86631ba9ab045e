"""params.yaml: what an experiment changes, split into choices of conf/'s groups and single values.

A scalar at `a.b` chooses conf/a/b/SCALAR.yaml where conf/a/b/ is a folder (`scale: tiny`); everything else
replaces one value (`prune: {ratio: 0.3}`). `task: FILE.py:CLASS` chooses conf/task/own.yaml and names the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from pydantic import BaseModel

from leanface.config import FaceConfig, fields_of
from leanface.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Params:
    """The two kinds of change.

    Attributes:
        choices: file of each chosen group, by the group's path ("prune/importance").
        values: the other keys, nested as in params.yaml.
    """

    choices: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[str, Any] = field(default_factory=dict[str, Any])


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, as DVC and Hydra do; PyYAML would drop the first one's values."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(str(key.value))
        return node


def read_params(path: Path) -> dict[str, Any]:
    """Read params.yaml.

    Raises:
        ConfigError: the file is missing, or is not a mapping.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: run this from the project's root folder.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ConfigError(f"{path}{line} is not YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not _is_mapping(tree):
        raise ConfigError(f"{path} must be a mapping (`seed: 0`, ...), got {tree!r}")
    return tree


def sort_params(tree: Mapping[str, Any], conf: Path, source: str) -> Params:
    """Split what params.yaml holds by the groups that `conf` has.

    Args:
        tree: nested, as in params.yaml.
        conf: the folder with the groups.
        source: what errors call the tree.

    Raises:
        ConfigError: a key or a choice is unknown; it says which are valid.
    """
    params = Params()
    _sort_into(params, params.values, tree, FaceConfig, (), conf, source)
    return params


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `changes`, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if _is_mapping(old) and _is_mapping(value) else value
    return merged


def known_keys() -> list[str]:
    """Return every key of the configuration, dotted, sections included."""
    return list(_dotted(FaceConfig, ""))


def _dotted(schema: Any, prefix: str) -> Iterator[str]:
    for name, inner in (fields_of(schema) or {}).items():
        yield prefix + name
        yield from _dotted(inner, f"{prefix}{name}.")


def _sort_into(
    params: Params,
    values: dict[str, Any],
    tree: Mapping[str, Any],
    schema: type[BaseModel] | None,
    parents: tuple[str, ...],
    conf: Path,
    source: str,
) -> None:
    fields = fields_of(schema)
    for key, value in tree.items():
        names = (*parents, str(key))
        if fields is not None and key not in fields:
            where = f"section {'.'.join(parents)}" if parents else "the top level"
            raise ConfigError(
                f"{source}: unknown key {'.'.join(names)}.{did_you_mean(key, fields)} "
                f"Valid in {where}: {', '.join(fields)}."
            )
        group = conf.joinpath(*names)
        if _is_mapping(value):
            inner = fields[key] if fields is not None else None
            _sort_into(params, values.setdefault(key, {}), value, inner, names, conf, source)
        elif names == ("task",) and (":" in str(value) or str(value).endswith(".py")):  # a user's own, FILE.py:CLASS
            params.choices["task"] = "own"
            values.setdefault("task", {})["name"] = value
        elif group.is_dir():
            options = sorted(file.stem for file in group.glob("*.yaml"))
            if value not in options:
                raise ConfigError(
                    f"{source}: {'.'.join(names)} = {value!r} names no file of {group}/."
                    f"{did_you_mean(value, options)} Valid in {group}/: {', '.join(options)}."
                )
            params.choices["/".join(names)] = value
        else:
            values[key] = value


def _is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
