"""Variants of the distillation, read from a YAML file."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from leanface.config import Config, Distill, Prune, Section
from leanface.errors import ConfigError
from leanface.params import merge

Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]
"""Names a folder."""

Start = Literal["pruned", "uncompensated", "scratch"]


class Variant(Section):
    """One row of the table: what the student starts from, the order of the faces, and the loss.

    Attributes:
        prune: how the original is pruned to the student's widths; None takes the pipeline's pruned network.
    """

    start: Start
    seed: int
    distill: Distill
    prune: Prune | None = None


class _Table(Section):
    common: dict[str, Any] = Field(default_factory=dict)
    variants: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]


def read_variants(path: Path, base: Config) -> dict[str, Variant]:
    """The variants by name, in the file's order.

    Args:
        base: the configuration that they change: its `distill`, its `seed` and, where they say so, its `prune`.

    Raises:
        ConfigError: the file is missing or not such a table, or a variant is not valid.
    """
    try:
        table = _Table.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing: run this from the project's root folder, or name another --table."
        ) from None
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} is no table of variants: {error}") from None
    common = merge(base.distill.model_dump(mode="json"), table.common)
    variants: dict[str, Variant] = {}
    for name, changes in table.variants.items():
        own = {"start": changes.pop("from", "pruned"), "seed": changes.pop("seed", base.seed)}
        if "prune" in changes:
            own["prune"] = merge(base.prune.model_dump(mode="json"), changes.pop("prune"))
        try:
            variants[name] = Variant.model_validate({**own, "distill": merge(common, changes)})
        except ValidationError as error:
            raise ConfigError(f"{path}: variant {name!r} is not valid: {error}") from None
    return variants
