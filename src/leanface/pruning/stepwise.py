"""Prunes in steps, and re-fits what is left to the original's responses after each."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from leanface.config import Prune
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet, widths_of
from leanface.networks.sparsity import sparsify
from leanface.pruning.allocation import Errors
from leanface.pruning.compensate import LayerFit, compensate
from leanface.pruning.gradients import Calibration
from leanface.pruning.importance import build_importance
from leanface.pruning.plan import plan
from leanface.pruning.prune import Kept, Scorer


class Pruned(NamedTuple):
    """What became of a network (all in eval mode).

    Attributes:
        network: the result.
        kept: its pruning record.
        states: the network before the last re-fit ("pruned"), after it ("compensated"), with zeros ("sparse"), as far
            as these are asked for.
        fits: of the last re-fit.
    """

    network: FaceReconstructionNet
    kept: Kept
    states: dict[str, FaceReconstructionNet]
    fits: list[LayerFit]


def prune(
    teacher: FaceReconstructionNet,
    config: Prune,
    images: Float[Tensor, "batch 3 height width"],
    model: MorphableModel,
    errors: Errors,
    seed: int,
) -> Pruned:
    """Remove the least important channels of every group of coupled convolutions; `teacher` is left as it is.

    How many channels each group keeps is decided once, on the original. Every step goes the same way towards that,
    and chooses the channels anew from the network that the last step left.

    Args:
        teacher: the original, in eval mode.
        config: everything that can be chosen.
        images: for the re-fit, in [0,1]; gradient-based criteria look at the first `config.gradient_count`.
        model: what the coefficients mean, for gradient-based criteria.
        errors: what pruning each group alone costs, for allocation sensitivity.
        seed: of what is left to chance.

    Raises:
        ConfigError: the ratio would empty a layer, the target is out of reach, or the criterion is wrong.
    """
    calibration = Calibration(images[: config.gradient_count], model)
    scorer = Scorer(teacher, build_importance(config.importance), seed, calibration)
    channels = scorer.channels
    goal = plan(teacher, scorer, config, images.shape[-1], errors)
    network, states, fits = teacher, dict[str, FaceReconstructionNet](), list[LayerFit]()
    kept = {name: list(range(outputs)) for name, (_, outputs) in widths_of(teacher).items()}
    for step in range(1, config.steps + 1):
        if step > 1:
            scorer = Scorer(network, build_importance(config.importance), seed, calibration)
        counts = {
            name: _between(channels[name], left, step / config.steps, config.round_to) for name, left in goal.items()
        }
        network, chosen = scorer.keep(counts)
        kept = {name: [kept[name][place] for place in places] for name, places in chosen.items()}
        states["pruned"] = network
        if config.compensate:
            network, fits = compensate(network, teacher, kept, images, config.ridge)
            states["compensated"] = network
    if config.sparsity is not None:
        network = states["sparse"] = sparsify(network, config.sparsity)
    return Pruned(network, kept, states, fits)


def _between(whole: int, left: int, progress: float, round_to: int) -> int:
    """How many of `whole` channels are there on the way to `left`, in multiples of `round_to`; `left` at the end."""
    steps = round((whole - left) * (1 - progress) / round_to)
    return min(whole, left + steps * round_to)
