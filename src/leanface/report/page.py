"""Write the report: summary.json, metrics.json, report.html (self-contained), report.md, model_card.md and figures/."""

import base64
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanface import catalog, paths
from leanface.catalog import BASELINE, DEPLOYED, EVALUATED, MEASURES, Subject
from leanface.config import Gates
from leanface.files import Json, atomic_write, write_json
from leanface.report import tables
from leanface.report.figures import save_pareto
from leanface.report.model_card import model_card
from leanface.report.sheet import DIFFERENCE_GAIN
from leanface.report.sources import PICTURES, Sources
from leanface.report.summary import GateResult, Summary, headline, summarize
from leanface.report.templates import render


@dataclass(frozen=True)
class Card:
    """One number at the top of the page, as text.

    Attributes:
        beside: what the original and a constant answer score, for comparison.
        gate: None for a number that nothing depends on.
    """

    name: str
    value: str
    interval: str
    definition: str
    beside: str
    limit: str = ""
    gate: GateResult | None = None


def write_report(sources: Sources, task: str, subject: Subject, gates: Gates) -> Summary:
    """Write every file of the report, summary.json and metrics.json last.

    Raises:
        ArtifactError: a number that the report rests on is missing.
    """
    summary = summarize(sources, task, subject, gates)
    pareto = {"pareto": paths.FIGURES / "pareto.png", "pareto_narrow": paths.FIGURES / "pareto_narrow.png"}
    for name, path in pareto.items():
        save_pareto(summary.variants, summary.error, path, narrow=name == "pareto_narrow")
    pictures = sources.pictures | pareto
    for name in EVALUATED:
        for sheet in subject.sheets:
            pictures[f"{name}_{sheet}"] = paths.evaluation_dir(name) / f"{sheet}.png"
    context = _context(sources, summary)
    own = subject.templates
    page, card = (
        ("report/template.html.j2", "report/model_card.md.j2")
        if own is None
        else (f"{own}/report.html.j2", f"{own}/model_card.md.j2")
    )
    atomic_write(paths.REPORT_HTML, render(page, pictures=inlined(pictures), **context))
    atomic_write(paths.REPORT_MD, render("report/template.md.j2", **context))
    atomic_write(paths.MODEL_CARD, render(card, **context))
    atomic_write(paths.SUMMARY, summary.model_dump_json(indent=1) + "\n")
    write_json(paths.METRICS, headline(summary))
    return summary


def cards(sources: Sources, summary: Summary) -> list[Card]:
    """List each gate, and the error that has none."""
    gated = [_card(name, sources, summary, gate) for name, gate in summary.gates.items()]
    return [*gated, _card(summary.error, sources, summary)]


def _card(name: str, sources: Sources, summary: Summary, gate: GateResult | None = None) -> Card:
    measure, deployed = MEASURES[name], summary.deployed
    scores = {
        "the original": sources.evaluations[BASELINE].mean(name) if measure.against == "truth" else None,
        f"a constant {summary.subject.constant.lower()}": sources.evaluations[BASELINE].constant.get(name),
    }
    beside = ", ".join(f"{who} {measure.text(score)}" for who, score in scores.items() if score is not None)
    interval = deployed.interval_text(name)
    if name == "speedup" and deployed.speedup_too_wide:
        interval = f"{interval}, too wide to compare" if interval else "measured too briefly for an interval"
    return Card(
        name=measure.full_heading if gate is None else measure.title,
        value=measure.text(deployed.measures[name]),
        interval=interval,
        definition=measure.definition,
        beside=beside,
        limit="" if gate is None else f"{'at least' if gate.bound == 'min' else 'at most'} {measure.text(gate.limit)}",
        gate=gate,
    )


def _context(sources: Sources, summary: Summary) -> dict[str, Any]:
    students = {name: sources.evaluations[name] for name in EVALUATED if name != BASELINE}
    evaluation, subject = sources.evaluations[BASELINE], summary.subject
    captions = {picture.name: picture.caption for picture in PICTURES} | dict(subject.pictures)
    return {
        "summary": summary,
        "subject": subject,
        "likeness": MEASURES[subject.likeness],
        "error": MEASURES[summary.error],
        "deployed": summary.deployed,
        "cards": cards(sources, summary),
        "failed_count": sum(not gate.passed for gate in summary.gates.values()),
        "gated": DEPLOYED,
        "ladder": tables.ladder(sources, summary),
        "ladder_mark": catalog.variant_title(DEPLOYED),
        "batches": sources.benchmark.settings.batches,
        "settings": sources.benchmark.settings,
        "image_size": evaluation.image_size,
        "count": evaluation.count,
        "against_teacher": tables.quality(students, catalog.measures_against("teacher")),
        "against_truth": tables.quality(sources.evaluations, catalog.measures_against("truth")),
        "constant": evaluation.constant,
        "students": {name: catalog.variant_title(name) for name in students},
        "networks": {name: catalog.variant_title(name) for name in EVALUATED},
        "variant_title": catalog.variant_title,
        "runtime_title": catalog.runtime_title,
        "ratio_text": tables.ratio_text,
        "measures": MEASURES,
        "benchmark": sources.benchmark,
        "notes": _notes(tables.not_run(summary), tables.parity(sources.exports)),
        "not_run": tables.not_run(summary),
        "made": _made(),
        "parity": tables.parity(sources.exports),
        "evaluated": tables.evaluated(sources.evaluations),
        "engines": {name: list(tables.flatten(_without_kernels(engine))) for name, engine in sources.engines.items()},
        "exports": {name: list(tables.flatten(description)) for name, description in sources.exports.items()},
        "stages": {name: list(tables.flatten(_scalars(metrics))) for name, metrics in sources.stages.items()},
        "steps": tables.steps(sources.stages, subject.steps),
        "step_measures": [MEASURES[name].full_heading for name in subject.steps],
        "device": list(tables.flatten(sources.device)),
        "config": sources.config,
        "card": model_card(sources),
        "captions": captions,
        "absent": [
            (captions[picture.name], picture.path)
            for picture in PICTURES
            if captions[picture.name] and picture.name not in sources.pictures
        ],
        "gain": DIFFERENCE_GAIN,
    }


def _notes(not_run: Sequence[tuple[str, str]], parity: Sequence[Any]) -> list[tuple[str, str]]:
    """Return what was not run, once for each reason, and the reason."""
    lines = [*not_run, *((f"{line.runtime}: comparison of {line.name} with PyTorch", line.reason) for line in parity)]
    by_reason: dict[str, list[str]] = {}
    for what, reason in lines:
        if reason:
            by_reason.setdefault(reason, []).append(what)
    return [("; ".join(whats), reason) for reason, whats in by_reason.items()]


def _made() -> list[tuple[str, str]]:
    """Say of which commit the report is, from when, and in which experiment; MLflow's run has the same name.

    Not when it was made: the same inputs give the same page.
    """
    commit, date, changes = (
        subprocess.run(["git", *command], capture_output=True, text=True, check=False).stdout.strip()
        for command in (
            ["rev-parse", "HEAD"],
            ["log", "-1", "--date=format:%Y-%m-%d %H:%M %z", "--format=%cd"],
            ["status", "--porcelain", "--untracked-files=no", "--", paths.PARAMS, paths.CONF, "src"],
        )
    )
    run = os.environ.get("DVC_EXP_NAME") or "pipeline"
    return [("commit", f"{commit}, with changes" if changes else commit), ("date of the commit", date), ("run", run)]


def _scalars(metrics: Json) -> Json:
    """Leave out the per-layer tables, which are in the pictures."""
    return {name: value for name, value in metrics.items() if not isinstance(value, dict | list)}


def _without_kernels(engine: Json) -> Json:
    """Return an engine's description; its `layers` sum up the kernels, of which there may be two hundred."""
    return {name: value for name, value in engine.items() if name != "kernels"}


def inlined(pictures: dict[str, Path]) -> dict[str, str]:
    """Turn PNG files into data: URLs."""
    return {
        name: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()
    }
