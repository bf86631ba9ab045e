"""What the small network learns from the original beside its answers, softened by a temperature.

A new one is one file here, one YAML in conf/distill/attention/ and one line in the table, see docs/adding-a-method.md.
"""

from collections.abc import Callable, Sequence

from leanface.distillation.attention.base import Attention
from leanface.distillation.attention.channels import ChannelAttention
from leanface.distillation.attention.imitation import AttentiveImitation
from leanface.distillation.attention.maps import AttentionMaps
from leanface.errors import ConfigError

__all__ = ["ATTENTIONS", "Attention", "build_attention"]

ATTENTIONS: dict[str, Callable[[float, Sequence[Sequence[int]]], Attention]] = {
    "channels": ChannelAttention,
    "maps": AttentionMaps,
    "imitation": AttentiveImitation,
}
"""By name; built from the temperature and the original's channels that survive, per stage."""


def build_attention(name: str, temperature: float, channels: Sequence[Sequence[int]]) -> Attention:
    """The attention that a configuration names.

    Raises:
        ConfigError: there is none of that name.
    """
    attention = ATTENTIONS.get(name)
    if attention is None:
        raise ConfigError(f"distill.attention.name: there is no {name!r}; use one of {', '.join(ATTENTIONS)}.")
    return attention(temperature, channels)
