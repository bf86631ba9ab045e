"""Which convolutions stay in floating point: those that are named, or those that sensitivity shows to be fragile."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from leanface.errors import ArtifactError, ConfigError

AUTO = "auto"
OUTLIER, MOST = 3.0, 4
"""`auto` keeps layers that cost more than OUTLIER times what the median layer costs, but at most the MOST worst."""


def layers_excluded_from_quantization(
    choice: Collection[str], layers: Collection[str], sensitivity: Path
) -> tuple[str, ...]:
    """Choose the convolutions to keep, in the order of `layers`.

    Args:
        choice: names, or `AUTO`.
        layers: the network's convolutions, as `widths_of` names them.
        sensitivity: stage analyze's sensitivity.json; read for `AUTO` only.

    Raises:
        ConfigError: a name is not a layer's, or all layers are named.
        ArtifactError: the sensitivity is missing or of other layers.
    """
    kept = _fragile(_errors(sensitivity, layers)) if choice == AUTO else set(choice)
    unknown = sorted(kept - set(layers))
    if unknown:
        raise ConfigError(
            f"quantize.keep_fp16 names layers that the network does not have: {', '.join(unknown)}. "
            f"Its convolutions are {', '.join(layers)}."
        )
    if kept == set(layers):
        raise ConfigError("quantize.keep_fp16 names every layer: nothing would be quantized. Name a few.")
    return tuple(name for name in layers if name in kept)


def _fragile(errors: Mapping[str, float]) -> set[str]:
    limit = OUTLIER * median(errors.values())
    worst = sorted(errors, key=lambda name: -errors[name])[:MOST]
    return {name for name in worst if errors[name] > limit}


def _errors(path: Path, layers: Collection[str]) -> dict[str, float]:
    """Read how far quantizing each layer alone moves the outputs, by the first measure of the task."""
    advice = "run stage analyze (`dvc repro analyze`), or name the layers in quantize.keep_fp16."
    try:
        entries: dict[str, Any] = json.loads(path.read_bytes())["quantize"]
        errors = {name: float(next(iter(entry.values()))) for name, entry in entries.items()}
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing, which quantize.keep_fp16=auto reads: {advice}") from None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ArtifactError(f"{path} does not hold an error per layer ({error!r}): {advice}") from None
    if set(errors) != set(layers):
        odd = sorted(set(errors) ^ set(layers))[:5]
        raise ArtifactError(f"{path} is not about this network's layers; they differ at {', '.join(odd)}: {advice}")
    return errors
