"""The page of `leanface profile`: a table of layers that can be sorted, with networks side by side."""

from collections.abc import Sequence
from pathlib import Path

from leanface.catalog import DASH, runtime_title
from leanface.files import atomic_write
from leanface.metrics.profile import COVERED, LayerTime, Profile, layer_order, layers
from leanface.report.templates import render


def write_profile_page(profiles: Sequence[Profile], path: Path) -> None:
    """Write the page whole or not at all; the other profiles are compared with the first."""
    found = [layers(profile) for profile in profiles]
    first = found[0]
    rows = [
        {
            "layer": layer,
            "cells": [_cell(own.get(layer)) for own in found],
            "gains": [_gain(first.get(layer), own.get(layer)) for own in found[1:]],
        }
        for layer in layer_order(profiles)
    ]
    text = render(
        "report/profile.html.j2",
        profiles=profiles,
        names=[profile_name(profile) for profile in profiles],
        remarks=[profile_remark(profile) for profile in profiles],
        reformats=[sum(own.reformat_ms for own in table.values()) for table in found],
        rows=rows,
    )
    atomic_write(path, text)


def is_profile_page(path: Path) -> bool:
    """Tell whether `write_profile_page` made a file."""
    return b'<div class="brand">LeanFace profile</div>' in path.read_bytes()


def profile_name(profile: Profile) -> str:
    """Return the network and what ran it."""
    return f"{profile.title}, {runtime_title(profile.runtime)}"


def profile_remark(profile: Profile) -> str:
    """Say in a sentence whether the layers explain the latency."""
    if profile.latency_ms is None or profile.difference is None:
        return f"The layers take {profile.sum_ms:.3g} ms together; the latency without the profiler is not known."
    verdict = "" if profile.covers else f", more than {COVERED:.0%} apart: measure again on an idle machine"
    return (
        f"The layers take {profile.sum_ms:.3g} ms together, the network {profile.latency_ms:.3g} ms: "
        f"{profile.difference:+.1%}{verdict}."
    )


def _cell(own: LayerTime | None) -> dict[str, str | float | None]:
    if own is None:
        return {"ms": None, "reformat": None, "mb": None, "precision": DASH, "kinds": ""}
    size = None if own.size_bytes is None else own.size_bytes / 1e6
    return {
        "ms": own.time_ms, "reformat": own.reformat_ms, "mb": size, "precision": own.precision, "kinds": own.kinds
    }  # fmt: skip


def _gain(first: LayerTime | None, own: LayerTime | None) -> float | None:
    return None if first is None or own is None or not own.time_ms else first.time_ms / own.time_ms
