"""Variants of a stage, read from a YAML file."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError

from leanface.config import Config, Distill, Prune, Quantize, Section
from leanface.errors import ConfigError
from leanface.params import merge

Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]
"""Names a folder."""

Start = Literal["pruned", "uncompensated", "scratch"]


class Variant(Section):
    """One row of the table: the order of the faces and the stage's settings, beside what the student starts from.

    Attributes:
        stage: the section of the configuration that a variant changes.
        further: sections that it changes where it names them.
    """

    stage: ClassVar[str]
    further: ClassVar[tuple[str, ...]] = ()
    seed: int

    @property
    def steps(self) -> int:
        """Of training."""
        return getattr(self, self.stage).optimizer.steps


class DistillVariant(Variant):
    """A loss and a training.

    Attributes:
        prune: how the original is pruned to the student's widths; None takes the pipeline's pruned network.
    """

    stage = "distill"
    further = ("prune",)
    start: Start = "pruned"
    distill: Distill
    prune: Prune | None = None


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
        base: the configuration that they change: the stage's section, `seed`, and further sections where they say so.
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
        own |= {key: merge(sections[key], changes.pop(key)) for key in kind.further if key in changes}
        try:
            variants[name] = kind.model_validate({**own, kind.stage: merge(common, changes)})
        except ValidationError as error:
            raise ConfigError(f"{path}: variant {name!r} is not valid: {error}") from None
    return variants
