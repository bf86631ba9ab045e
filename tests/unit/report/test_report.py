import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from leanface import catalog, paths
from leanface.errors import ArtifactError
from leanface.metrics.measurements import Measurement, read_benchmark
from leanface.metrics.ratio import MedianEstimate
from leanface.report.page import write_report
from leanface.report.sources import PICTURES, read_sources
from leanface.report.summary import NotRun, Summary, VariantSummary, check_gates
from tests.unit.report.conftest import GATES, NO_GPU, around, leave_outputs, write_record

VOID = {"meta", "source", "img", "link", "br", "input", "hr"}


class Page(HTMLParser):
    """Collects what a page refers to, and its text; refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.images = 0
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        self.images += tag == "img"
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def edit(path: Path, change: Any) -> None:
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def change_rows(change: Callable[[Measurement], list[Measurement]]) -> None:
    """Replace each row of the benchmark by what becomes of it."""
    benchmark = read_benchmark(paths.BENCHMARK)
    rows = tuple(new for old in benchmark.rows for new in change(old))
    write_record(benchmark.model_copy(update={"rows": rows}))


def report() -> Summary:
    """Write the report; the summary as it was read back."""
    written = write_report(read_sources(), "face", catalog.FACE, GATES)
    assert Summary.parse(json.loads(paths.SUMMARY.read_text()), "it") == written
    return written


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A project folder with its report, and the summary. Do not change it: drawing takes half a second."""
    folder = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        leave_outputs()
        return folder, report()


@pytest.fixture
def summary(reported: tuple[Path, Summary], monkeypatch: pytest.MonkeyPatch) -> Summary:
    """The summary of a report that is in the current folder."""
    monkeypatch.chdir(reported[0])
    return reported[1]


@pytest.mark.usefixtures("summary")
def test_summary_has_every_measure_of_every_variant_by_its_one_name():
    summary = json.loads(paths.SUMMARY.read_text())
    assert set(summary) >= {"scale", "device", "variants", "gates"}
    assert list(summary["variants"]) == list(catalog.EVALUATED)
    for variant in summary["variants"].values():
        assert set(variant) == {"runtime", "intervals", *catalog.FACE.summary}
        assert variant["energy_ratio"] is None
        assert set(variant["intervals"]) < set(catalog.FACE.summary)
    assert summary["not_measured"] == {"energy_ratio": "an imaginary processor needs none"}
    assert list(summary["gates"]) == ["ssim", "mse", "size_ratio", "speedup"]


def test_dvc_shows_the_headline_of_the_deployed_network(summary: Summary) -> None:
    metrics = json.loads(paths.METRICS.read_text())
    assert tuple(metrics) == catalog.FACE.headline
    assert metrics["speedup"] == summary.deployed.measures["speedup"] == pytest.approx(20.0)


def test_energy_is_compared_where_the_same_counter_measured_it(run):
    def counted(row: Measurement) -> list[Measurement]:
        if not row.ran:
            return [row]
        source = "nvml" if row.variant == "distilled_fp16" else "rapl"
        energy = {"energy_mj": 10 * row.latency_ms, "energy_source": source, "energy_reason": None}
        return [row.model_copy(update=energy)]

    change_rows(counted)
    summary = report()
    assert summary.variants["quantized_int8"].measures["energy_ratio"] == pytest.approx(20.0)
    assert summary.variants["distilled_fp16"].measures["energy_ratio"] is None
    assert summary.not_measured == {}


def test_more_streams_count_for_throughput_but_not_for_latency(reported: tuple[Path, Summary], run: Path) -> None:
    before = reported[1].deployed.measures

    def concurrent(row: Measurement) -> list[Measurement]:
        if not row.ran:
            return [row]
        faster = {"streams": 2, "latency": around(row.latency_ms / 2), "speedup": around(4 * row.speedup.value)}
        return [row, row.model_copy(update=faster)]

    change_rows(concurrent)
    after = report().deployed.measures
    assert after["latency_ms"] == before["latency_ms"]
    assert after["throughput_ratio"] == pytest.approx(4 * before["throughput_ratio"])


def test_speed_is_the_measured_ratio_with_its_interval(summary: Summary) -> None:
    variants = summary.variants
    int8, original = variants["quantized_int8"], variants["teacher_fp32"]
    assert int8.runtime == "openvino"
    assert (int8.measures["latency_ms"], int8.measures["speedup"]) == (2.0, 20.0)
    assert int8.intervals["speedup"] == pytest.approx((19.0, 21.0))
    assert (original.runtime, original.measures["speedup"]) == ("onnxruntime", 2.0)
    assert int8.measures["throughput_ratio"] == pytest.approx(20.0)
    assert int8.measures["size_ratio"] == 16


def deployed(**changes: Any) -> VariantSummary:
    """Numbers that pass every gate by themselves, and with their intervals."""
    numbers = {"ssim": 0.99, "mse": 0.001, "size_ratio": 20.0, "speedup": 12.0}
    intervals = {"ssim": (0.989, 0.991), "mse": (0.0009, 0.0011), "speedup": (11.5, 12.5)}
    intervals |= changes.pop("intervals", {})
    return VariantSummary.model_validate({"runtime": "openvino", "intervals": intervals} | numbers | changes)


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        ("speedup", {"intervals": {"speedup": (9.9, 14.0)}}),
        ("mse", {"intervals": {"mse": (0.0009, 0.0051)}}),
        ("ssim", {"intervals": {"ssim": (0.9819, 0.999)}}),
        ("size_ratio", {"size_ratio": 14.9}),
    ],
)
def test_a_gate_is_decided_on_the_worse_end_of_the_interval(gate, changes):
    assert all(result.passed for result in check_gates(GATES, deployed()).values())
    outcome = check_gates(GATES, deployed(**changes))
    assert [name for name, result in outcome.items() if not result.passed] == [gate]


def test_a_value_that_is_undefined_or_has_no_interval_fails_its_gate():
    unknown = deployed(ssim=None)
    unknown.intervals.pop("ssim")
    assert not check_gates(GATES, unknown)["ssim"].passed
    brief = deployed(speedup=100.0)
    brief.intervals.pop("speedup")
    result = check_gates(GATES, brief)["speedup"]
    assert (result.value, result.interval, result.passed) == (100.0, None, False)


@pytest.mark.usefixtures("summary")
def test_the_page_stands_alone():
    text = paths.REPORT_HTML.read_text()
    page = Page(text)
    assert page.images >= len(PICTURES) + 2 * len(catalog.EVALUATED) - 2
    inner = {reference for reference in page.references if reference.startswith("#")}
    assert all(f'id="{name[1:]}"' in text for name in inner)
    assert all(name.startswith("data:image/png;base64,") for name in set(page.references) - inner)
    assert not re.search(r"url\(|@import|<script|https?://", text)


def test_the_page_tells_a_failed_gate_from_a_passed_one(reported: tuple[Path, Summary], run: Path) -> None:
    assert "of 4 gates failed" not in Page((reported[0] / paths.REPORT_HTML).read_text()).text
    edit(paths.BENCHMARK, lambda contents: contents["files"].update(quantized_int8=9_000_000))
    report()
    text = Page(paths.REPORT_HTML.read_text()).text
    assert "1 of 4 gates failed" in text
    assert "✗ failed" in text
    assert "gates failed" in paths.REPORT_MD.read_text().splitlines()[0]


def test_the_cards_say_what_the_original_and_a_mean_face_score(summary: Summary) -> None:
    error, original = (summary.variants[name].text("truth_vertex_mm") for name in ("quantized_int8", "teacher_fp32"))
    for text in texts():
        assert "a constant mean face 0.9650" in text
        assert f"the original {original}, a constant mean face 3.37" in text
    assert f"Vertex error to ground truth (mm) {error}" in texts()[0]


def test_a_trial_run_says_that_its_numbers_mean_nothing(reported: tuple[Path, Summary], run: Path) -> None:
    assert reported[1].warning is None
    paths.CONFIG.write_text(paths.CONFIG.read_text().replace("scale: imaginary", "scale: tiny"))
    report()
    for text in (*texts(), paths.MODEL_CARD.read_text()):
        assert "its numbers mean nothing" in text


@pytest.mark.parametrize(
    ("speedup", "said"),
    [
        (MedianEstimate(20.0, 9.0, 40.0, 7), "too wide to compare"),
        (MedianEstimate(20.0, None, None, 3), "3 windows: too few for an interval"),
    ],
)
def test_a_speedup_that_says_next_to_nothing_is_said_to(run, speedup, said):
    def uncertain(row: Measurement) -> list[Measurement]:
        ours = row.ran and row.variant == "quantized_int8"
        return [row.model_copy(update={"speedup": speedup}) if ours else row]

    change_rows(uncertain)
    assert report().deployed.speedup_too_wide
    for text in texts():
        assert said in text
    assert "its speed-up is too uncertain to state" in texts()[0]


def test_what_was_not_run_is_named_with_its_reason_and_has_no_number(summary: Summary) -> None:
    assert NotRun(variants=catalog.ENGINES, runtime="tensorrt", reason=NO_GPU) in summary.not_run
    for text in (Page(paths.REPORT_HTML.read_text()).text, paths.REPORT_MD.read_text()):
        assert "TensorRT INT8" in text
        assert "not run" in text
        assert re.search(r"Original, Light, Light FP16, Light INT8 in TensorRT:\s+no supported GPU", text)
        assert re.search(r"Times less energy per image:\s+an imaginary processor needs none", text)
    line = next(line for line in paths.REPORT_MD.read_text().splitlines() if line.startswith("| TensorRT INT8"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2] == "not run"
    assert cells[3] == cells[7] == cells[8] == cells[9] == "\N{EN DASH}"


def texts() -> tuple[str, str]:
    return Page(paths.REPORT_HTML.read_text()).text, paths.REPORT_MD.read_text()


def test_what_is_odd_about_a_run_is_said(run):
    """All of it in one report: drawing takes half a second."""

    def blind(contents: Any) -> None:
        row = next(row for row in contents["parity"]["rows"] if (row["runtime"], row["input"]) == ("openvino", "black"))
        row |= {"relative_l2": 0.123, "worst_relative_l2": 0.456}

    edit(paths.onnx_path("quantized_int8").with_suffix(".json"), blind)
    edit(paths.evaluation_dir("quantized_int8") / "metrics.json", lambda it: it.update(runtime="openvino"))
    edit(paths.evaluation_dir("distilled_fp16") / "metrics.json", lambda it: it.update(undefined={"ssim_face": 3}))
    missing = PICTURES[0].path
    missing.unlink()
    report()
    page, text = texts()

    # the input on which a file is farthest off
    assert "Light INT8 OpenVINO 0.0600 black 0.123 0.456 0.200" in page
    assert "| Light INT8 | OpenVINO | 0.0600 | black | 0.123 | 0.456 | 0.200 |" in text
    assert "at most 0.123 on 3 kinds of input (black); tolerance 0.200" in paths.MODEL_CARD.read_text()
    assert "there is no such GPU" in page
    assert "there is no such GPU" in text

    # where each network was evaluated, and why not elsewhere
    assert "ONNX Runtime (Original, Light, Light FP16, Light INT8 for CPUs); OpenVINO (Light INT8)." in page
    assert "TensorRT (Light INT8): no supported GPU" in page
    assert "Light INT8: evaluated in OpenVINO" in text
    assert text.count("- Not in TensorRT: no supported GPU") == 2

    # what a mean leaves out
    assert (page.count("without 3 of 20"), text.count("without 3 of 20")) == (1, 1)
    assert "left out" in page

    # a picture that is not there
    assert f"{missing} was not made" in page


def test_the_model_card_tells_what_was_measured_and_what_it_is_not_for(
    reported: tuple[Path, Summary], run: Path
) -> None:
    folder, summary = reported
    card = (folder / paths.MODEL_CARD).read_text()
    assert card.startswith("# Model card: quantized_int8.onnx\n\n**All gates of its run passed.**")
    assert "Not for recognizing or identifying people" in card
    assert f"{summary.deployed.text('speedup')} as fast" in card
    assert "95 % interval 19.0" in card
    assert "| License of the weights | imaginary |" in card
    assert "it was not run on this machine: no supported GPU" in card
    assert "someone" in card
    edit(paths.BENCHMARK, lambda contents: contents["files"].update(quantized_int8=9_000_000))
    report()
    assert "do not deploy it" in paths.MODEL_CARD.read_text()


def test_the_model_card_says_on_how_many_faces_and_for_which_sizes_it_was_trained(
    reported: tuple[Path, Summary], run: Path
) -> None:
    stored = (reported[0] / paths.MODEL_CARD).read_text()
    assert "rendered faces alone (2400 for training, 160 for" in stored
    assert "but were not evaluated" in stored
    config = paths.CONFIG.read_text()
    config = config.replace("streamed: false", "streamed: true").replace("norm: true", "norm: false")
    config = config.replace("start_from: null", "start_from: earlier/distilled")
    paths.CONFIG.write_text(config)
    report()
    streamed = paths.MODEL_CARD.read_text()
    assert "rendered faces alone (6400 for distillation" in streamed
    assert "seen once, beside those of `earlier/distilled`, 2400 for all other" in streamed
    assert "it does badly on others" in streamed
    assert "distillation (400 steps, after those of `earlier/distilled`)" in streamed


@pytest.mark.usefixtures("summary")
def test_a_phone_gets_the_pareto_picture_upright():
    with Image.open(paths.FIGURES / "pareto.png") as wide, Image.open(paths.FIGURES / "pareto_narrow.png") as narrow:
        assert wide.width > 2 * wide.height
        assert narrow.width < narrow.height
    assert re.search(r'<source media="\(max-width: 700px\)" srcset="data:image/png', paths.REPORT_HTML.read_text())


def test_the_same_reports_give_the_same_page(reported: tuple[Path, Summary], run: Path) -> None:
    report()
    for path in (paths.SUMMARY, paths.REPORT_HTML, paths.REPORT_MD):
        assert path.read_bytes() == (reported[0] / path).read_bytes(), path


def test_numbers_of_two_machines_are_not_mixed(run):
    edit(paths.DEVICE, lambda contents: contents.update(cpu="Another 3000"))
    with pytest.raises(ArtifactError, match=r"differ in cpu.*dvc repro --force benchmark"):
        read_sources()
    assert not paths.SUMMARY.exists()


@pytest.mark.parametrize("path", [paths.BENCHMARK, paths.evaluation_dir("quantized_int8") / "metrics.json"])
@pytest.mark.parametrize("contents", [None, "{", "[]"])
def test_a_missing_or_broken_report_is_named(run, path, contents):
    path.unlink() if contents is None else path.write_text(contents)
    with pytest.raises(ArtifactError, match=re.escape(str(path))):
        read_sources()


def test_without_the_original_in_pytorch_there_is_nothing_to_compare_with(run):
    edit(paths.BENCHMARK, lambda it: it.update(rows=[row for row in it["rows"] if row["runtime"] != "torch"]))
    with pytest.raises(ArtifactError, match="no row of teacher_fp32 in PyTorch"):
        report()


def test_photos_have_no_ground_truth_and_the_report_says_so(run: Path) -> None:
    def unlabel(contents: Any) -> None:
        kept = {name: value for name, value in contents["measures"].items() if not name.startswith("truth_")}
        contents |= {"measures": kept, "constant": {}}

    for variant in catalog.EVALUATED:
        edit(paths.evaluation_dir(variant) / "metrics.json", unlabel)
    summary = report()
    assert all(variant.measures["truth_vertex_mm"] is None for variant in summary.variants.values())
    page, text = Page(paths.REPORT_HTML.read_text()).text, paths.REPORT_MD.read_text()
    assert "photos without labels" in page
    assert "Against ground truth" not in page + text + paths.MODEL_CARD.read_text()
    assert "Nothing was measured against ground truth" in paths.MODEL_CARD.read_text()
    assert "Against the original" in page
    assert "Against the original" in text
