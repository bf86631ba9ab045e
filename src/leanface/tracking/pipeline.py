"""Record a finished pipeline: what its networks score, and what they were made from."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from leanface import paths
from leanface.catalog import (
    BASELINE,
    DEPLOYED,
    DEPLOYED_ON_CPU,
    MEASURES,
    PERCENT,
    TIMES,
    VARIANTS,
    Subject,
    variant_title,
)
from leanface.config import FACE
from leanface.files import Json
from leanface.report.summary import subject_in
from leanface.tracking import outbox
from leanface.tracking.champion import newest_made
from leanface.tracking.group import end_pipeline
from leanface.tracking.names import (
    EXPERIMENT_TAG,
    GATE_TAG,
    PARENT_RUN,
    PIPELINE_TAG,
    PROMOTED_TAG,
    SUMMARY_TAG,
)
from leanface.tracking.packages import CPU_NETWORK, MORPHABLE_MODEL
from leanface.tracking.place import store_root
from leanface.tracking.record import Dataset, File, Record, Variant, find_files, read_record
from leanface.tracking.runs import Run, flatten, now, origin
from leanface.tracking.view import describe_experiment

DIGEST_LENGTH = 16
"""Hexadecimal digits of a dataset's digest; MLflow's pages show them in full."""

CONTEXTS = {"train": "training", "val": "validation", "test": "evaluation"}
"""What MLflow calls the splits' uses."""


def in_trial() -> bool:
    """Tell whether a sweep runs this stage, and will record the pipeline's summary itself."""
    return PARENT_RUN in os.environ


def log_headline(run: Run, summary: Mapping[str, Any]) -> None:
    """Log the deployed variant's numbers of a summary.json, by the same names as in a pipeline's summary run."""
    numbers = _numbers(summary, DEPLOYED)
    run.log({f"{DEPLOYED}/{name}": value for name, value in numbers.items()}, 0)
    run.log(numbers, list(summary["variants"]).index(DEPLOYED))
    # By a name that comes after the numbers': MLflow's contour plot shows the first one unless asked.
    run.log({f"{DEPLOYED}/passes_gates": float(_passed(summary))}, 0)
    run.record.note = headline(summary)


def log_summary(
    summary: Mapping[str, Any],
    params: Mapping[str, Any],
    artifacts: Sequence[Path],
    tags: Mapping[str, str],
    model: Path | None = None,
) -> None:
    """Record a finished pipeline as a run of its own, and deliver what waits in the outbox.

    The runs of its stages are shown below it. Each variant becomes a model with its metrics. If the gates passed, the
    deployed one becomes its task's `CHAMPION` (see `registered_name`); an experiment's does not, since an experiment is
    applied before it counts.

    Args:
        summary: contents of summary.json; each variant's numbers are recorded as VARIANT/METRIC.
        params: the configuration.
        artifacts: files and folders to attach, as they are now.
        tags: in addition to those that say where the run comes from.
        model: the ONNX file that the summary's gates are about.
    """
    passed = _passed(summary)
    gates = {f"{GATE_TAG}{name}": _verdict(gate) for name, gate in summary["gates"].items()}
    tags = {**origin(), **tags, SUMMARY_TAG: "passed" if passed else "failed", **gates}
    promoted = tags.get(PROMOTED_TAG)
    name = f"promoted {promoted}" if promoted else tags.get(EXPERIMENT_TAG, "pipeline")
    record = Record(name, flatten(params), tags, now())
    if promoted is None:
        pipeline = end_pipeline()
        record.started, record.tags[PIPELINE_TAG] = min(pipeline.started, record.started), pipeline.id
    record.files, record.missing = find_files(artifacts, store_root())
    networks, missing = find_files([] if model is None else [model], store_root())
    record.model, record.missing = next(iter(networks), None), record.missing + missing
    if model is not None:
        record.beside = _beside(model, record.task)
    record.champion = passed and EXPERIMENT_TAG not in tags
    record.variants, record.datasets = _variants(summary), _datasets()
    record.note = _description(summary, [file.name for file in record.files])
    run = Run(record)
    numbers = {f"{variant}/{name}": value for variant in summary["variants"]
               for name, value in _numbers(summary, variant).items()}  # fmt: skip
    first = _headline_measures(_subject(summary))
    run.log({name: numbers[name] for name in sorted(numbers, key=lambda name: _rank(name, first))}, 0)
    run.open()
    with run.tolerant():
        if run.store is not None:
            describe_experiment(run.store.client, run.store.experiment_id, _subject(summary))
    record.made_at = _later_than_others(run)
    run.finish("FINISHED")


def headline(summary: Mapping[str, Any]) -> str:
    """Say in a line how good, fast and small the deployed network is, and whether its gates passed."""
    ours, original = _numbers(summary, DEPLOYED), _numbers(summary, BASELINE)
    parts = list[str]()
    for name in _headline_measures(_subject(summary)):
        if name in ours:
            measure, text = MEASURES[name], MEASURES[name].text(ours[name])
            title = (measure.short or measure.title).lower() if measure.short else measure.title
            unit = "" if measure.unit == PERCENT else f" {measure.unit}".rstrip()
            part = f"{text} {title}" if measure.unit == TIMES else f"{title} {text}{unit}"
            known = measure.against == "truth" and name in original
            parts.append(f"{part} (original {measure.text(original[name])})" if known else part)
    failed = [name for name, gate in summary["gates"].items() if not gate["passed"]]
    verdict = f"gates failed: {', '.join(failed)}" if failed else "all gates passed"
    return f"{variant_title(DEPLOYED)}: {', '.join([*parts, verdict])}."


def _description(summary: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return a run's description in Markdown; {run_id} stands for its id, which MLflow chooses."""
    parts, subject = [f"**{headline(summary)}**"], _subject(summary)
    if subject.picture in names:
        caption = subject.sheets.get(subject.picture.removesuffix(".png"), subject.samples)
        parts.append(f"![{caption}](get-artifact?path={subject.picture}&run_uuid={{run_id}})")
    rows = "\n".join(f"| {name} | {_verdict(gate)} |" for name, gate in summary["gates"].items())
    return "\n\n".join([*parts, f"| Gate | |\n|---|---|\n{rows}"])


def _verdict(gate: Mapping[str, Any]) -> str:
    verdict = "passed" if gate["passed"] else "failed"
    if gate.get("value") is None or "bound" not in gate:
        return verdict
    return f"{verdict}: {gate['value']:.5g} ({'at least' if gate['bound'] == 'min' else 'at most'} {gate['limit']:g})"


def _variants(summary: Mapping[str, Any]) -> list[Variant]:
    variants = list[Variant]()
    for name, row in summary["variants"].items():
        networks, _ = find_files([paths.onnx_path(name)], store_root())
        params = {key: value for key, value in row.items() if isinstance(value, str)}
        if name in VARIANTS:
            params["exported_from"] = str(VARIANTS[name].bundle)
        variants.append(Variant(name, _numbers(summary, name), params, next(iter(networks), None)))
    return variants


def _beside(network: Path, task: str) -> dict[str, File]:
    """Return what the deployed model needs beside its network, of what is there."""
    parts = {CPU_NETWORK: network.with_stem(DEPLOYED_ON_CPU)}
    parts |= {MORPHABLE_MODEL: paths.MORPHABLE_MODEL} if task == FACE else {}
    found = {part: next(iter(find_files([path], store_root())[0]), None) for part, path in parts.items()}
    return {part: file for part, file in found.items() if file is not None}


def _datasets() -> list[Dataset]:
    """Return the splits that this pipeline was trained and tested on, known by their images' SHA-256."""
    folder = next((each for each in (paths.FACES, paths.SAMPLES) if each.is_dir()), paths.FACES)
    try:
        manifest: Json = json.loads((folder / "manifest.json").read_text())
        shared = {"image_size": manifest["image_size"], "seed": manifest["seed"]}
        found = list[Dataset]()
        for split, context in CONTEXTS.items():
            described = manifest["splits"][split]
            digest = described["sha256"]["images.npy"][:DIGEST_LENGTH]
            profile = {"count": described["count"], **shared}
            found.append(Dataset(f"{folder.name}/{split}", digest, str(folder / split), context, profile))
        return found
    except (OSError, ValueError, LookupError, TypeError):  # photos of the user's have no such manifest
        return []


def _later_than_others(run: Run) -> int:
    """Return the time, or more if the clock was set back since another run that is known here was recorded."""
    known = [now()]
    with run.tolerant():
        if run.store is not None:
            known.append(newest_made(run.store.client, run.record.task) + 1)
    for path in outbox.waiting():
        with contextlib.suppress(Exception):  # delivery says what is wrong with it
            known.append(read_record(path).made_at + 1)
    return max(known)


def _numbers(summary: Mapping[str, Any], variant: str) -> dict[str, float]:
    row: Mapping[str, Any] = summary["variants"].get(variant, {})
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}


def _passed(summary: Mapping[str, Any]) -> bool:
    return all(gate["passed"] for gate in summary["gates"].values())


def _subject(summary: Mapping[str, Any]) -> Subject:
    own: Any = summary.get("own_subject")
    return subject_in(summary.get("task", "face"), own and TypeAdapter(Subject).validate_python(own))


def _headline_measures(subject: Subject) -> tuple[str, ...]:
    """Name the measures of the deployed network that sum a run up, the most telling first."""
    return (subject.error, subject.teacher_error, "speedup", "size_ratio", subject.likeness)


def _rank(metric: str, first: Sequence[str]) -> int:
    """Put headlines first, then the deployed network's: MLflow's pages plot the first metric unless told otherwise."""
    variant, _, measure = metric.partition("/")
    if variant != DEPLOYED:
        return len(first) + 1
    return first.index(measure) if measure in first else len(first)
