import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from leanface import paths
from leanface.config import Gates
from leanface.errors import ArtifactError
from leanface.files import write_json
from leanface.report.page import write_report
from leanface.report.sources import PICTURES, read_sources
from leanface.report.summary import check_gates

GATES = Gates(uv_ssim_min=0.982, mse_max=0.005, size_ratio_min=15.0, speedup_min=10.0)
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


def report() -> dict[str, Any]:
    write_report(read_sources(), GATES)
    return json.loads(paths.SUMMARY.read_text())


def test_summary_has_the_agreed_layout(run):
    summary = report()
    assert set(summary) >= {"device", "variants", "gates"}
    assert set(summary["variants"]) == set(paths.VARIANTS)
    for variant in summary["variants"].values():
        assert set(variant) >= {
            "ssim", "ssim_render", "ssim_face", "mse", "vertex_error_mm", "size_mb", "latency_ms_p50",
            "speedup", "throughput_ratio", "memory_mb", "energy_ratio", "runtime",
        }  # fmt: skip
        assert variant["energy_ratio"] is None
    assert summary["not_measured"] == {"energy_ratio": "an imaginary processor needs none"}
    assert all(set(gate) >= {"limit", "value", "passed"} for gate in summary["gates"].values())


def test_energy_is_compared_where_the_same_counter_measured_it(run):
    benchmark = json.loads(paths.BENCHMARK.read_text())
    for row in benchmark["rows"]:
        if row["status"] != "not_run":
            source = "nvml" if row["variant"] == "distilled_fp16" else "rapl"
            row |= {"energy_mj": 10 * row["p50_ms"], "energy_source": source, "energy_reason": None}
    write_json(paths.BENCHMARK, benchmark)
    summary = report()
    assert summary["variants"]["quantized_int8"]["energy_ratio"] == pytest.approx(20.0)
    assert summary["variants"]["distilled_fp16"]["energy_ratio"] is None
    assert summary["not_measured"] == {}


def test_on_a_gpu_speed_is_relative_to_pytorch_on_it(run):
    benchmark = json.loads(paths.BENCHMARK.read_text())
    gpu = [row | {"runtime": "torch_cuda", "p50_ms": 4.0} for row in benchmark["rows"] if row["runtime"] == "torch"]
    write_json(paths.BENCHMARK, benchmark | {"rows": benchmark["rows"] + gpu})
    assert report()["variants"]["quantized_int8"]["speedup"] == 2.0


def test_more_streams_count_for_throughput_but_not_for_latency(run):
    before = report()["variants"]["quantized_int8"]
    benchmark = json.loads(paths.BENCHMARK.read_text())
    more = [
        row | {"streams": 2, "p50_ms": row["p50_ms"] / 2, "images_per_second": 4 * row["images_per_second"]}
        for row in benchmark["rows"]
        if row["status"] != "not_run"
    ]
    write_json(paths.BENCHMARK, benchmark | {"rows": benchmark["rows"] + more})
    after = report()["variants"]["quantized_int8"]
    assert after["latency_ms_p50"] == before["latency_ms_p50"]
    assert after["throughput_ratio"] == pytest.approx(4 * before["throughput_ratio"])


def test_speed_is_relative_to_the_original_in_pytorch(run):
    variants = report()["variants"]
    int8, original = variants["quantized_int8"], variants["original_fp32"]
    assert (int8["runtime"], int8["latency_ms_p50"], int8["speedup"]) == ("openvino", 2.0, 20.0)
    assert (original["runtime"], original["speedup"]) == ("onnxruntime", 2.0)
    assert int8["throughput_ratio"] == pytest.approx(20.0)
    assert original["size_mb"] / int8["size_mb"] == 16


def test_gates_compare_each_value_with_its_limit(run):
    gates = report()["gates"]
    assert gates["size_ratio"] == {"limit": 15.0, "value": 16.0, "passed": True, "bound": "min"}
    assert gates["speedup"]["passed"]
    assert gates["mse"]["passed"]
    for name, change in (
        ("speedup", {"speedup": 9.99}),
        ("mse", {"mse": 0.0051}),
        ("ssim", {"ssim": 0.9819}),
    ):
        ours = {"ssim": 0.99, "mse": 0.001, "size_mb": 1.0, "speedup": 12.0}
        variants = {"original_fp32": {"size_mb": 20.0}, "quantized_int8": ours | change}
        outcome = check_gates(GATES, variants)
        assert [key for key, gate in outcome.items() if not gate["passed"]] == [name]


def test_an_undefined_value_fails_its_gate():
    ours = {"ssim": None, "mse": 0.001, "size_mb": 1.0, "speedup": 12.0}
    gates = check_gates(GATES, {"original_fp32": {"size_mb": 20.0}, "quantized_int8": ours})
    assert not gates["ssim"]["passed"]
    assert gates["ssim"]["value"] is None


def test_the_page_stands_alone(run):
    report()
    text = paths.REPORT_HTML.read_text()
    page = Page(text)
    assert page.images >= len(PICTURES) + 2 * len(paths.VARIANTS) - 2
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert not re.search(r"url\(|@import|<script|https?://", text)


def test_the_page_tells_a_failed_gate_from_a_passed_one(run):
    report()
    assert "of 4 gates failed" not in Page(paths.REPORT_HTML.read_text()).text
    edit(paths.BENCHMARK, lambda contents: contents["files"].update(quantized_int8=9_000_000))
    report()
    text = Page(paths.REPORT_HTML.read_text()).text
    assert "1 of 4 gates failed" in text
    assert "✗ failed" in text
    assert "gates failed" in paths.REPORT_MD.read_text().splitlines()[0]


def test_what_was_not_run_is_named_with_its_reason_and_has_no_number(run):
    summary = report()
    row = {"variants": list(paths.VARIANTS), "runtime": "tensorrt", "reason": "no supported GPU"}
    assert row in summary["not_run"]
    for text in (Page(paths.REPORT_HTML.read_text()).text, paths.REPORT_MD.read_text()):
        assert "TensorRT INT8" in text
        assert "not run" in text
        assert re.search(r"Original, Light, Light FP16, Light INT8 in TensorRT:\s+no supported GPU", text)
        assert re.search(r"Energy per image:\s+an imaginary processor needs none", text)
    line = next(line for line in paths.REPORT_MD.read_text().splitlines() if line.startswith("| TensorRT INT8"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2] == "not run"
    assert cells[3] == cells[6] == cells[7] == cells[8] == "\N{EN DASH}"


def texts() -> tuple[str, str]:
    return Page(paths.REPORT_HTML.read_text()).text, paths.REPORT_MD.read_text()


def test_the_input_on_which_a_file_is_farthest_off_is_shown(run):
    def blind(contents: Any) -> None:
        row = next(row for row in contents["parity"]["rows"] if (row["runtime"], row["input"]) == ("openvino", "black"))
        row |= {"relative_l2": 0.123, "worst_relative_l2": 0.456}

    edit(paths.onnx_path("quantized_int8").with_suffix(".json"), blind)
    report()
    assert "Light INT8 OpenVINO 0.0600 black 0.123 0.456 0.200" in texts()[0]
    assert "| Light INT8 | OpenVINO | 0.0600 | black | 0.123 | 0.456 | 0.200 |" in texts()[1]
    assert "at most 0.123 on 3 kinds of input (black); allowed 0.200" in paths.MODEL_CARD.read_text()
    for text in texts():
        assert "there is no such GPU" in text


def test_it_says_where_each_network_was_evaluated_and_why_not_elsewhere(run):
    edit(paths.evaluation_dir("quantized_int8") / "metrics.json", lambda it: it.update(runtime="openvino"))
    report()
    page, text = texts()
    assert "ONNX Runtime (Original, Light, Light FP16); OpenVINO (Light INT8)." in page
    assert "TensorRT (Light INT8): no supported GPU" in page
    assert "Light INT8: evaluated in OpenVINO" in text
    assert text.count("- Not in TensorRT: no supported GPU") == 2


def test_a_mean_says_what_it_leaves_out(run):
    edit(paths.evaluation_dir("distilled_fp16") / "metrics.json", lambda it: it.update(undefined={"ssim_face": 3}))
    report()
    for text in texts():
        assert text.count("without 3 of 20") == 1
    assert "left out" in texts()[0]


def test_the_model_card_tells_what_was_measured_and_what_it_is_not_for(run):
    summary = report()
    card = paths.MODEL_CARD.read_text()
    assert card.startswith("# Model card: quantized_int8.onnx\n\n**All gates of its run passed.**")
    assert "Not for recognising or identifying people" in card
    assert f"{summary['variants']['quantized_int8']['speedup']:.0f}.0 times faster" in card
    assert "| Licence of the weights | imaginary |" in card
    assert "it was not run on this machine: no supported GPU" in card
    assert "someone" in card
    edit(paths.BENCHMARK, lambda contents: contents["files"].update(quantized_int8=9_000_000))
    report()
    assert "do not deploy it" in paths.MODEL_CARD.read_text()


def test_the_model_card_says_on_how_many_faces_and_for_which_sizes_it_was_trained(run):
    report()
    stored = paths.MODEL_CARD.read_text()
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
    assert "it reads others badly" in streamed
    assert "distillation (400 steps, after those of `earlier/distilled`)" in streamed


def test_a_phone_gets_the_pareto_picture_upright(run):
    report()
    with Image.open(paths.FIGURES / "pareto.png") as wide, Image.open(paths.FIGURES / "pareto_narrow.png") as narrow:
        assert wide.width > 2 * wide.height
        assert narrow.width < narrow.height
    assert re.search(r'<source media="\(max-width: 700px\)" srcset="data:image/png', paths.REPORT_HTML.read_text())


def test_a_missing_picture_is_named(run):
    missing = PICTURES[0]
    missing.path.unlink()
    report()
    assert f"{missing.path} was not made" in Page(paths.REPORT_HTML.read_text()).text


def test_the_same_reports_give_the_same_page(run):
    report()
    first = [path.read_bytes() for path in (paths.SUMMARY, paths.REPORT_HTML, paths.REPORT_MD)]
    report()
    assert [path.read_bytes() for path in (paths.SUMMARY, paths.REPORT_HTML, paths.REPORT_MD)] == first


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
    with pytest.raises(ArtifactError, match="no row of original_fp32 in PyTorch"):
        report()


def test_photos_have_no_ground_truth_and_the_report_says_so(run: Path) -> None:
    def unlabel(contents: Any) -> None:
        kept = {name: value for name, value in contents["measures"].items() if not name.startswith("truth_")}
        contents |= {"measures": kept, "mean_face": {}}

    for variant in paths.VARIANTS:
        edit(paths.evaluation_dir(variant) / "metrics.json", unlabel)
    summary = report()
    assert all(variant["vertex_error_mm"] is None for variant in summary["variants"].values())
    page, text = Page(paths.REPORT_HTML.read_text()).text, paths.REPORT_MD.read_text()
    assert "photos without labels" in page
    assert "Against ground truth" not in page + text + paths.MODEL_CARD.read_text()
    assert "Nothing was measured against ground truth" in paths.MODEL_CARD.read_text()
    assert "Against the original" in page
    assert "Against the original" in text
