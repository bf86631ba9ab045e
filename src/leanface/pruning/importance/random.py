"""The control: channels go by chance."""

from torch_pruning.pruner.importance import RandomImportance


class Random(RandomImportance):
    """Uniform scores from torch's generator, which `prune` seeds."""
