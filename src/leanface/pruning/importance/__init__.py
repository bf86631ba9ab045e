"""Pruning criteria: what each channel of a group of coupled convolutions is worth.

A new criterion is one file here, one YAML in conf/prune/importance/ and one line in the table, see
docs/adding-a-method.md.
"""

import inspect
from collections.abc import Callable

from torch import Tensor
from torch_pruning.dependency import Group

from leanface import config
from leanface.errors import ConfigError
from leanface.pruning.importance.magnitude import Magnitude
from leanface.pruning.importance.random import Random

Importance = Callable[[Group], Tensor | None]
"""Scores the channels that coupled layers share, higher is more important: shape (channels,).

None says that the group holds nothing that the criterion can judge; it then stays whole.
"""

IMPORTANCES: dict[str, Callable[..., Importance]] = {
    "magnitude": Magnitude,
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
