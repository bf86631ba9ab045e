"""What the catalog names exists by that name, and one entry is all that a new runtime or measure needs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from leanface import catalog, paths
from leanface.catalog import MEASURES, RUNTIMES, VARIANTS, Measure, RuntimeEntry
from leanface.config import Benchmark
from leanface.face.morphable_model import MorphableModel
from leanface.report.page import write_report
from leanface.report.sources import read_sources
from leanface.report.summary import VariantSummary
from leanface.runtime import files_of, open_best, open_runtime, runtime_class
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime
from leanface.runtime.benchmark import plan
from leanface.synthesis.synthesis import population
from leanface.tasks.face.evaluation import Evaluator
from tests.unit.report.conftest import GATES, evaluation, write_evaluation

SETTINGS = Benchmark(
    batches=(1,), streams=(1,), warmup=1, window=1, windows_max=6, interval=1.0, threads=1, energy_seconds=1.0
)


class Mean(Runtime):
    """Takes any file, and predicts the mean face."""

    name = "mean"
    outputs = 257

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        return InputSpec()

    def _infer(self, images: Images, stream: int) -> Coefficients:
        return np.zeros((len(images), 257), np.float32)

    def _close(self) -> None: ...


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_is_implemented_under_its_name(name: str) -> None:
    assert runtime_class(name).name == name


def test_evaluation_takes_every_measure_in_the_catalog_and_no_other(model: MorphableModel) -> None:
    evaluator = Evaluator(model, image_size=64, supersample=1, uv_size=32)
    mean = population(model)[0].expand(2, -1)
    images = torch.zeros(2, 3, 64, 64)
    compared = evaluator.compare(lambda batch: mean.numpy(), lambda batch: mean.numpy(), images)
    taken = {*compared.similarity, *evaluator.errors(mean, mean)}
    compared = {name for name, measure in MEASURES.items() if measure.against is not None}
    assert taken == compared - set(catalog.CLASSIFICATION_MEASURES)


def test_what_is_summarized_and_gated_is_in_the_catalog() -> None:
    for entry in catalog.TASKS.values():
        subject = entry.subject
        named = {*subject.summary, *subject.headline, *subject.steps, subject.error, subject.teacher_error}
        assert {*named, subject.likeness} <= set(MEASURES)
        assert {subject.error, subject.teacher_error, subject.likeness} <= set(subject.summary)
    assert {catalog.BASELINE, catalog.DEPLOYED} <= set(catalog.EVALUATED) <= set(VARIANTS)
    assert set(catalog.BASELINE_RUNTIMES) <= set(RUNTIMES)


def test_no_two_things_look_alike() -> None:
    for table in (VARIANTS, RUNTIMES):
        assert len({entry.title for entry in table.values()}) == len(table)
    assert len({variant.color for variant in VARIANTS.values()}) == len(VARIANTS)
    headings = [measure.full_heading for measure in MEASURES.values()]
    assert len(set(headings)) == len(headings)


def test_a_new_runtime_is_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = RuntimeEntry("The mean face", "onnx", ("int8",), f"{__name__}:Mean")
    monkeypatch.setitem(RUNTIMES, "mean", entry)
    assert files_of("quantized_int8")["mean"] == paths.onnx_path("quantized_int8")
    assert "mean" not in files_of("distilled_fp16")
    assert [item.variant for item in plan(SETTINGS) if item.runtime == "mean"] == ["cpu_int8", "quantized_int8"]
    assert catalog.readers_of("onnx")[-1] == "mean"
    assert catalog.runtime_title("mean") == "The mean face"
    (tmp_path / "any.onnx").write_bytes(b"any")
    with open_runtime("mean", tmp_path / "any.onnx") as runtime:
        assert runtime.run(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 257)
    with open_best({"mean": tmp_path / "any.onnx", "openvino": tmp_path / "gone.onnx"}).runtime as best:
        assert best.name == "mean"


def test_a_new_measure_is_one_entry(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    measure = Measure("Ear error", "mm", "lower", "mean distance of the ears, to ground truth", against="truth")
    monkeypatch.setitem(MEASURES, "truth_ear_mm", measure)
    for variant in catalog.EVALUATED:
        write_evaluation(evaluation(variant))
    write_report(read_sources(), "face", catalog.FACE, GATES)
    value = read_sources().evaluations["quantized_int8"].mean("truth_ear_mm")
    for page in (paths.REPORT_HTML, paths.REPORT_MD, paths.MODEL_CARD):
        assert re.search(rf"Ear error \(mm\).*{measure.text(value)}", page.read_text()), page


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [
        ("ssim_face", 0.99964, "0.9996"),
        ("ssim", 0.5, "0.5000"),
        ("mse", 0.5, "0.500"),
        ("ssim", None, catalog.DASH),
        ("speedup", None, catalog.DASH),
        ("speedup", 20.55, f"20.6{catalog.TIMES}"),
        ("macs", 276_601_856, "277"),
    ],
)
def test_a_measure_is_written_with_the_digits_that_count(measure: str, value: float | None, text: str) -> None:
    assert MEASURES[measure].text(value) == text


def test_a_variant_keeps_its_numbers_under_the_same_names_in_json() -> None:
    numbers = dict.fromkeys(catalog.FACE.summary, 1.5)
    written = VariantSummary.model_validate({"runtime": "openvino", "intervals": {"speedup": (1, 2)}, **numbers})
    assert VariantSummary.model_validate_json(written.model_dump_json()) == written
    assert written.model_dump().keys() == {"runtime", "intervals", *catalog.FACE.summary}
