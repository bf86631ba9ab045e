"""Pruning criteria: what each channel of a group of coupled convolutions is worth.

A new criterion is one file here, one YAML in conf/prune/importance/ and one line in the table, see
docs/adding-a-method.md.
"""

import inspect
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch_pruning.dependency import Group

from leanface import config
from leanface.errors import ConfigError
from leanface.pruning.importance.batch_norm_scale import BatchNormScale
from leanface.pruning.importance.fpgm import FPGM
from leanface.pruning.importance.hessian import HessianDiagonal
from leanface.pruning.importance.magnitude import Magnitude
from leanface.pruning.importance.random import Random
from leanface.pruning.importance.taylor import Taylor


class Importance(Protocol):
    """A pruning criterion."""

    def __call__(self, group: Group) -> Tensor | None:
        """Score the channels that coupled layers share, higher is more important: shape (channels,).

        None says that the group holds nothing that the criterion can judge; it then stays whole.
        """
        ...


@runtime_checkable
class GradientImportance(Importance, Protocol):
    """A criterion that looks at gradients first; only such a one makes pruning pay for them."""

    def observe(self, network: nn.Module) -> None:
        """Called before any scoring, once per calibration image, with its gradient (see `gradients`) in `.grad`."""
        ...


IMPORTANCES: dict[str, Callable[..., Importance]] = {
    "magnitude": Magnitude,
    "batch_norm_scale": BatchNormScale,
    "fpgm": FPGM,
    "taylor": Taylor,
    "hessian": HessianDiagonal,
    "random": Random,
}
"""Pruning criteria by name; the keys of `prune.importance.options` are the criterion's keyword arguments."""


def build_importance(choice: config.Importance) -> Importance:
    """The criterion that a configuration names.

    Raises:
        ConfigError: there is none of that name, or it refuses the options.
    """
    criterion = IMPORTANCES.get(choice.name)
    if criterion is None:
        raise ConfigError(f"prune.importance.name: there is no {choice.name!r}; use one of {', '.join(IMPORTANCES)}.")
    parameters = inspect.signature(criterion).parameters
    unknown = sorted(set(choice.options) - set(parameters))
    if unknown:
        raise ConfigError(
            f"prune.importance.options: {choice.name} has no option {', '.join(unknown)}; "
            f"it takes {', '.join(parameters) or 'none'}. Fix conf/prune/importance/{choice.name}.yaml."
        )
    try:
        return criterion(**choice.options)
    except ValueError as error:
        raise ConfigError(f"prune.importance.options of {choice.name}: {error}") from None
