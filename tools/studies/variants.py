"""Variants of a stage, read from a YAML file."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError

from leanface.config import Config, Distill, Quantize, Section
from leanface.errors import ConfigError
from leanface.params import merge

Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]
"""Names a folder."""


class Variant(Section):
    """One row of the table: the order of the faces and the stage's settings.

    Attributes:
        stage: the section of the configuration that a variant changes.
    """

    stage: ClassVar[str]
    seed: int

    @property
    def steps(self) -> int:
        """Of training."""
        return getattr(self, self.stage).optimizer.steps


class DistillVariant(Variant):
    """A loss and a training, from the pruned network."""

    stage = "distill"
    distill: Distill


class QuantizeVariant(Variant):
    """A calibration and, with method qat, a training from there.

    Attributes:
        start: "float" is the distilled network without quantizers: as it is, or trained on for as many steps.
    """

    stage = "quantize"
    start: Literal["calibrated", "float"] = "calibrated"
    quantize: Quantize

    @property
    def steps(self) -> int:
        return super().steps if self.quantize.method == "qat" else 0


V = TypeVar("V", bound=Variant)


class _Table(Section):
    common: dict[str, Any] = Field(default_factory=dict)
    variants: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]


def read_variants(path: Path, base: Config, kind: type[V]) -> dict[str, V]:
    """The variants by name, in the file's order.

    Args:
        base: the configuration that they change: the stage's section and `seed`.
        kind: which stage's they are.

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
    sections = base.model_dump(mode="json")
    common = merge(sections[kind.stage], table.common)
    variants: dict[str, V] = {}
    for name, changes in table.variants.items():
        own = {"seed": changes.pop("seed", base.seed)}
        own |= {"start": changes.pop("from")} if "from" in changes else {}
        try:
            variants[name] = kind.model_validate({**own, kind.stage: merge(common, changes)})
        except ValidationError as error:
            raise ConfigError(f"{path}: variant {name!r} is not valid: {error}") from None
    return variants
