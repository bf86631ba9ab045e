"""Compare what stage evaluate measured of each network with the goals of networks trained on a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from leanface import catalog, paths
from leanface.catalog import BASELINE
from leanface.files import Json
from leanface.metrics.measurements import Evaluation, read_evaluation


@dataclass(frozen=True)
class Goal:
    """What a measure of one network was to reach.

    Attributes:
        measure: a name in `leanface.catalog.MEASURES`.
        ratio_to: the network whose value of the same measure it is divided by.
    """

    name: str
    variant: str
    measure: str
    limit: float
    ratio_to: str | None = None

    @property
    def at_least(self) -> bool:
        """Whether the limit is the least that will do, not the most."""
        return catalog.MEASURES[self.measure].better == "higher"


GOALS = (
    Goal("Identity to truth (mm)", BASELINE, "truth_identity_mm", 1.0),
    Goal("Rotation to truth (degrees)", BASELINE, "truth_rotation_deg", 0.9),
    Goal("Albedo to truth (levels)", BASELINE, "truth_albedo_levels", 8.0),
    Goal("Identity to truth, times the original's", "distilled_fp32", "truth_identity_mm", 1.05, BASELINE),
    Goal("Identity to truth, times the distilled", catalog.DEPLOYED, "truth_identity_mm", 1.01, "distilled_fp32"),
    Goal("UV SSIM to the original", catalog.DEPLOYED, "ssim", 0.997),
    Goal("Re-rendered SSIM, face region, to the original", catalog.DEPLOYED, "ssim_face", 0.98),
    Goal("Re-rendered MSE to the original", catalog.DEPLOYED, "mse", 0.0005),
)
"""Of networks at 224 px trained on a GPU."""

ERRORS = ("truth_identity_mm", "truth_vertex_mm", "truth_rotation_deg", "truth_albedo_levels")
"""Whose ratios to the original's are shown."""


def read_evaluations(run: Path) -> dict[str, Evaluation]:
    """Read stage evaluate's metrics of each network that it was run for, the teacher first."""
    files = {name: run / paths.evaluation_dir(name) / "metrics.json" for name in catalog.EVALUATED}
    return {name: read_evaluation(file) for name, file in files.items() if file.is_file()}


def check_goals(evaluations: Mapping[str, Evaluation], gates: Mapping[str, float] | None = None) -> list[Json]:
    """Check each of `GOALS` whose networks were evaluated, and the configuration's own gates on quality.

    Args:
        evaluations: by network.
        gates: `evaluate.gates` of the configuration.

    Returns:
        name, variant, limit, at_least, value (None if undefined) and passed of each.
    """
    goals = list(GOALS)
    if gates is not None:
        goals += [
            Goal("Gate: UV SSIM to the original", catalog.DEPLOYED, "ssim", gates["ssim_min"]),
            Goal("Gate: re-rendered MSE to the original", catalog.DEPLOYED, "mse", gates["mse_max"]),
        ]
    checked: list[Json] = []
    for goal in goals:
        if not {goal.variant, goal.ratio_to or goal.variant} <= evaluations.keys():
            continue
        value = evaluations[goal.variant].mean(goal.measure)
        if goal.ratio_to is not None:
            value = ratio(value, evaluations[goal.ratio_to].mean(goal.measure))
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


def ratios(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, float | None]]:
    """Divide each network's errors against truth by the teacher's, by network and measure; {} without the teacher."""
    if BASELINE not in evaluations:
        return {}
    teacher = evaluations[BASELINE]
    return {
        name: {measure: ratio(evaluation.mean(measure), teacher.mean(measure)) for measure in ERRORS}
        for name, evaluation in evaluations.items()
        if name != BASELINE
    }


def ratio(one: float | None, other: float | None) -> float | None:
    """Divide; None where either is undefined, or there is nothing to divide by."""
    return None if one is None or not other else one / other
