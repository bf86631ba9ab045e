"""dvc.yaml, read without DVC: what each stage reads and writes, and whether that has changed."""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from leanface import paths
from leanface.bundle import SPEC, WEIGHTS
from leanface.errors import ArtifactError, ConfigError
from tools.gpu_box.weights import is_bundle, shrink

CONFIGURED_HERE = "configure"
"""Needs Hydra: its result travels instead."""

IGNORED = ("__pycache__", ".pyc", ".egg-info")
"""Ends of names that are nobody's input; .dvcignore has them too."""

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Step:
    """One stage, of one variant where it has variants.

    Attributes:
        title: as DVC writes it, `export@distilled_fp16`.
        sections: of reports/config.yaml.
        inputs: files and folders, the code included; outputs likewise.
    """

    title: str
    stage: str
    variant: str | None
    sections: tuple[str, ...]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]


def read_steps(pipeline: Path = paths.PIPELINE) -> dict[str, Step]:
    """The steps in the order of dvc.yaml, which is that of the pipeline, by title."""
    try:
        tree: Any = yaml.safe_load(pipeline.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{pipeline} is missing: run this in the project's root folder.") from None
    variables = {name: value for entry in tree["vars"] for name, value in entry.items()}
    steps: dict[str, Step] = {}
    for stage, entry in tree["stages"].items():
        if stage == CONFIGURED_HERE:
            continue
        if "foreach" in entry:
            for key, item in variables[entry["foreach"].strip("${}")].items():
                steps[f"{stage}@{key}"] = _step(stage, key, entry["do"], {"key": key, "item": item})
        else:
            steps[stage] = _step(stage, None, entry, {})
    return steps


def choose(steps: Mapping[str, Step], names: Sequence[str]) -> list[Step]:
    """The named steps in the pipeline's order; `export` stands for `export@` every variant.

    Raises:
        ConfigError: a name is unknown.
    """
    known = {step.stage for step in steps.values()} | set(steps)
    if unknown := sorted(set(names) - known):
        raise ConfigError(f"unknown stages {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
    return [step for step in steps.values() if step.title in names or step.stage in names]


def object_id(path: Path) -> str | None:
    """Git's id of a file or folder, so that a commit can be told by it; None if there is nothing at `path`.

    A folder with a manifest.json is told by that, less the versions it was made with: it has the digests of the rest.
    A network is told by its spec, likewise, and its weights as they travel (see `weights`): unpacked or trained by DVC,
    which rounds nothing, it is the same one.
    """
    if path.is_file():
        return _git_id("blob", path.read_bytes())
    if not path.is_dir():
        return None
    if (path / MANIFEST).is_file():
        return _git_id("blob", _without_versions(path / MANIFEST))
    if is_bundle(path):
        # One that is damaged, or cannot travel, is told as any other folder.
        with contextlib.suppress(ArtifactError, OSError, ValueError, LookupError):
            return _git_id("blob", _without_versions(path / SPEC) + shrink((path / WEIGHTS).read_bytes()))
    return _tree_id(path).hex()


def _without_versions(path: Path) -> bytes:
    contents: dict[str, Any] = json.loads(path.read_text())
    contents.pop("versions", None)
    return json.dumps(contents, sort_keys=True).encode()


def _tree_id(folder: Path) -> bytes:
    entries: list[tuple[str, bytes]] = []
    for path in folder.iterdir():
        if path.name.endswith(IGNORED):
            continue
        if path.is_dir():
            entries.append((f"{path.name}/", b"40000 " + path.name.encode() + b"\0" + _tree_id(path)))
        else:
            entry = b"100644 " + path.name.encode() + b"\0" + bytes.fromhex(_git_id("blob", path.read_bytes()))
            entries.append((path.name, entry))
    return bytes.fromhex(_git_id("tree", b"".join(entry for _, entry in sorted(entries))))


def _git_id(kind: str, contents: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(contents)}\0".encode() + contents, usedforsecurity=False).hexdigest()


def _step(stage: str, variant: str | None, entry: Mapping[str, Any], names: Mapping[str, str]) -> Step:
    def path(value: str | Mapping[str, Any]) -> Path:
        text = value if isinstance(value, str) else next(iter(value))
        return Path(re.sub(r"\$\{(\w+)\}", lambda match: names[match[1]], text))

    title = stage if variant is None else f"{stage}@{variant}"
    sections = [name for params in entry.get("params", []) for listed in params.values() for name in listed]
    inputs = tuple(map(path, entry.get("deps", [])))
    outputs = tuple(path(value) for kind in ("outs", "metrics", "plots") for value in entry.get(kind, []))
    return Step(title, stage, variant, tuple(sections), inputs, outputs)
