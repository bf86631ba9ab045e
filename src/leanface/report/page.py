"""Writes the report: summary.json, report.html (self-contained), report.md, model_card.md and figures/."""

import base64
from pathlib import Path
from typing import Any

from leanface import paths
from leanface.config import Gates
from leanface.files import Json, atomic_write, write_json
from leanface.report import tables
from leanface.report.card import card
from leanface.report.figures import save_pareto
from leanface.report.sheet import DIFFERENCE_GAIN
from leanface.report.sources import PICTURES, Sources
from leanface.report.summary import summarize
from leanface.report.templates import render


def write_report(sources: Sources, gates: Gates) -> Json:
    """Write every file of the report, summary.json last; returns the summary.

    Raises:
        ArtifactError: a number that the report rests on is missing.
    """
    summary = summarize(sources, gates)
    pareto = {"pareto": paths.FIGURES / "pareto.png", "pareto_narrow": paths.FIGURES / "pareto_narrow.png"}
    for name, path in pareto.items():
        save_pareto(summary["variants"], path, narrow=name == "pareto_narrow")
    pictures = sources.pictures | pareto
    for name in paths.VARIANTS:
        for sheet in ("faces", "photos", "worst", "heatmap"):
            pictures[f"{name}_{sheet}"] = paths.evaluation_dir(name) / f"{sheet}.png"
    context = _context(sources, summary)
    atomic_write(paths.REPORT_HTML, render("report/template.html.j2", pictures=inlined(pictures), **context))
    atomic_write(paths.REPORT_MD, render("report/template.md.j2", **context))
    atomic_write(paths.MODEL_CARD, render("report/model_card.md.j2", **context))
    write_json(paths.SUMMARY, summary)
    return summary


def _context(sources: Sources, summary: Json) -> dict[str, Any]:
    original, *others = paths.VARIANTS
    compressed = {name: sources.evaluations[name] for name in others}
    return {
        "summary": summary,
        "gates": [
            {**gate, "key": name, "name": tables.GATE_NAMES[name][0], "detail": tables.GATE_NAMES[name][1]}
            for name, gate in summary["gates"].items()
        ],
        "passed": all(gate["passed"] for gate in summary["gates"].values()),
        "gated": paths.DEPLOYED,
        "ladder": tables.ladder(sources, summary),
        "ladder_mark": tables.VARIANT_NAMES[paths.DEPLOYED],
        "batches": sources.benchmark["settings"]["batches"],
        "settings": sources.benchmark["settings"],
        "image_size": sources.evaluations[original]["image_size"],
        "count": sources.evaluations[original]["count"],
        "against_original": tables.quality(compressed, tables.AGAINST_ORIGINAL),
        "against_truth": tables.quality(sources.evaluations, tables.AGAINST_TRUTH),
        "mean_face": sources.evaluations[original]["mean_face"],
        "compressed": {name: tables.VARIANT_NAMES[name] for name in others},
        "networks": {name: tables.VARIANT_NAMES[name] for name in paths.VARIANTS},
        "variant_names": tables.VARIANT_NAMES,
        "runtime_names": tables.RUNTIME_NAMES,
        "benchmark": sources.benchmark,
        "not_run": tables.not_run(summary),
        "parity": tables.parity(sources.exports),
        "evaluated": tables.evaluated(sources.evaluations),
        "engines": {name: list(tables.flatten(description)) for name, description in sources.engines.items()},
        "exports": {name: list(tables.flatten(description)) for name, description in sources.exports.items()},
        "stages": {name: list(tables.flatten(_scalars(metrics))) for name, metrics in sources.stages.items()},
        "steps": tables.steps(sources.stages),
        "step_measures": list(tables.STEP_MEASURES.values()),
        "device": list(tables.flatten(sources.device)),
        "config": sources.config,
        "card": card(sources),
        "captions": {picture.name: picture.caption for picture in PICTURES},
        "absent": [picture for picture in PICTURES if picture.name not in sources.pictures],
        "gain": DIFFERENCE_GAIN,
        "value_of": tables.value_of,
    }


def _scalars(metrics: Json) -> Json:
    """Without the per-layer tables, which are in the pictures."""
    return {name: value for name, value in metrics.items() if not isinstance(value, dict | list)}


def inlined(pictures: dict[str, Path]) -> dict[str, str]:
    """PNG files as data: URLs."""
    return {
        name: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()
    }
