"""How pictures name the layers of the face's network."""

from leanface.task import Naming

KINDS = {
    "conv1": ("1x1, reduces", "#7fb3ea"),
    "conv2": ("3x3", "#0550ae"),
    "conv3": ("1x1, expands", "#b6d5f5"),
    "downsample": ("1x1, projects the identity", "#d97706"),
    "": ("stem and heads", "#6e7781"),
}
"""The convolutions of a bottleneck, and their colors."""

HEADS = ("identity", "expression", "albedo", "angles", "lighting", "shift", "depth")
"""What each of the seven heads reads."""


def _part(name: str) -> str:
    """Return stem, layer1 to layer4, or heads."""
    where = name.split(".")
    return "heads" if where[0] == "final_layers" else "stem" if where[1] == "conv1" else where[1]


def _kind(name: str) -> str:
    return next((kind for kind in KINDS if kind and f".{kind}" in name.removeprefix("backbone.")), "")


def _label(name: str) -> str:
    if name.startswith("final_layers."):
        return HEADS[int(name.removeprefix("final_layers."))]
    return name.removeprefix("backbone.").removesuffix(".0")


NAMING = Naming(_part, _label, _kind, KINDS)
