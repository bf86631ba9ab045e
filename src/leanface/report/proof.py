"""A run's quality: what stage evaluate measured of each network, and which of the goals the run reached."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from leanface import paths
from leanface.files import Json, read_json
from leanface.report.summary import BASELINE, mean


@dataclass(frozen=True)
class Goal:
    """What a measure of one network was to reach.

    Attributes:
        measure: of stage evaluate, see `leanface.report.tables`.
        ratio_to: the network whose value of the same measure it is divided by.
        at_least: False if the limit is the largest that will do.
    """

    name: str
    variant: str
    measure: str
    limit: float
    ratio_to: str | None = None
    at_least: bool = False


GOALS = (
    Goal("Identity to truth (mm)", BASELINE, "truth_identity_mm", 1.0),
    Goal("Rotation to truth (degrees)", BASELINE, "truth_rotation_deg", 0.9),
    Goal("Albedo to truth (levels)", BASELINE, "truth_albedo_levels", 8.0),
    Goal("Identity to truth, times the original's", "distilled_fp32", "truth_identity_mm", 1.05, BASELINE),
    Goal("Identity to truth, times the distilled", paths.DEPLOYED, "truth_identity_mm", 1.01, "distilled_fp32"),
    Goal("UV SSIM to the original", paths.DEPLOYED, "ssim", 0.997, at_least=True),
    Goal("Re-rendered SSIM, face region, to the original", paths.DEPLOYED, "ssim_face", 0.98, at_least=True),
    Goal("Re-rendered MSE to the original", paths.DEPLOYED, "mse", 0.0005),
)
"""Of networks at 224 px trained on a GPU."""

ERRORS = ("truth_identity_mm", "truth_vertex_mm", "truth_rotation_deg", "truth_albedo_levels")
"""Whose ratios to the original's are shown."""


def read_evaluations(run: Path) -> dict[str, Json]:
    """Stage evaluate's metrics of each network that it was run for, the original first."""
    files = {name: run / paths.evaluation_dir(name) / "metrics.json" for name in paths.VARIANTS}
    return {name: read_json(file) for name, file in files.items() if file.is_file()}


def check_goals(evaluations: Mapping[str, Json], gates: Mapping[str, float] | None = None) -> list[Json]:
    """Each of `GOALS` whose networks were evaluated, and the configuration's own gates, with the value reached.

    Args:
        evaluations: by network.
        gates: `evaluate.gates` of the configuration; those on speed and size are the benchmark's.

    Returns:
        name, variant, limit, at_least, value (None if undefined) and passed of each.
    """
    goals = list(GOALS)
    if gates is not None:
        goals += [
            Goal("Gate: UV SSIM to the original", paths.DEPLOYED, "ssim", gates["uv_ssim_min"], at_least=True),
            Goal("Gate: re-rendered MSE to the original", paths.DEPLOYED, "mse", gates["mse_max"]),
        ]
    checked: list[Json] = []
    for goal in goals:
        if not {goal.variant, goal.ratio_to or goal.variant} <= evaluations.keys():
            continue
        value = mean(evaluations[goal.variant], goal.measure)
        if goal.ratio_to is not None:
            value = ratio(value, mean(evaluations[goal.ratio_to], goal.measure))
        passed = value is not None and (value >= goal.limit if goal.at_least else value <= goal.limit)
        checked.append(
            {
                "name": goal.name,
                "variant": goal.variant,
                "limit": goal.limit,
                "at_least": goal.at_least,
                "value": value,
                "passed": passed,
            }
        )
    return checked


def ratios(evaluations: Mapping[str, Json]) -> dict[str, dict[str, float | None]]:
    """Each network's errors against truth over the original's, by network and measure; none without the original."""
    if BASELINE not in evaluations:
        return {}
    original = evaluations[BASELINE]
    return {
        name: {measure: ratio(mean(evaluation, measure), mean(original, measure)) for measure in ERRORS}
        for name, evaluation in evaluations.items()
        if name != BASELINE
    }


def ratio(one: float | None, other: float | None) -> float | None:
    """None where either is undefined, or there is nothing to divide by."""
    return None if one is None or not other else one / other
