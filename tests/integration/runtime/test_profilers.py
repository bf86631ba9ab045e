"""`leanface profile` on real networks."""

from pathlib import Path

import pytest

from leanface.cli import main
from leanface.errors import BackendError
from leanface.metrics.profile import layers, read_profiles
from leanface.runtime import profilers
from leanface.runtime.profilers import profile_network
from leanface.runtime.trtexec import read_trtexec
from tests.browsers import running_chromium


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profilers, "SECONDS", 0.1)


@pytest.mark.parametrize(("runtime", "conv"), [("openvino", "Convolution"), ("onnxruntime", "Conv")])
def test_layers_of_two_precisions_have_the_same_names(exported, runtime: str, conv: str) -> None:
    floating, int8 = (layers(profile_network(file, runtime, threads=1)) for file in (exported.fp32, exported.int8))
    convolutions = {f"backbone.layer{stage}.0.conv{number}" for stage in (1, 2, 3, 4) for number in (1, 2, 3)}
    for found in (floating, int8):
        assert {"backbone.conv1", *convolutions} <= set(found)
        assert all(own.time_ms > 0 and conv in own.kinds for name, own in found.items() if name in convolutions)
        assert all(own.size_bytes for own in found.values())
    assert floating["backbone.layer3.0.conv2"].precision in ("f32", "float")
    assert int8["backbone.conv1"].reformat_ms > 0


def test_an_int8_layer_reads_fewer_bytes_and_executes_in_int8(exported) -> None:
    floating, int8 = (layers(profile_network(file, "openvino", threads=1)) for file in (exported.fp32, exported.int8))
    layer = "backbone.layer3.0.conv2"
    assert int8[layer].precision == "i8"
    assert (int8[layer].size_bytes or 0) < 0.5 * (floating[layer].size_bytes or 0)


def test_a_runtime_without_a_profiler_names_those_that_have_one(exported) -> None:
    with pytest.raises(BackendError, match="expected one of triton_int8, openvino, onnxruntime"):
        profile_network(exported.int8, "tensorrt")


def test_the_page_compares_a_file_with_a_saved_profile_and_sorts(
    exported, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--threads", "1", "--runtime", "openvino"]
    assert main(["profile", str(exported.fp32), *options, "--output", "first.html"]) == 0
    assert main(["profile", "first.json", str(exported.int8), *options]) == 0
    assert "The layers take" in capsys.readouterr().out
    assert [profile.title for profile in read_profiles(Path("profile.json"))] == ["fp32", "int8"]
    with running_chromium(tmp_path) as browser:
        page = browser.new_page()
        page.goto((project / "profile.html").as_uri())
        times = (
            "() => [...document.querySelectorAll('#layers tbody tr')].map(row => Number(row.cells[1].dataset.value))"
        )
        before = page.evaluate(times)
        page.get_by_role("button", name="ms", exact=True).first.click()
        assert page.evaluate(times) == sorted(before, reverse=True) != before


def test_inputs_and_other_files_are_not_written_over(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = Path("profile.json")
    measured.write_text('[{"count": 1}, {"name": "conv", "averageMs": 0.5}]')
    Path("page.html").write_text("<p>The user's.</p>")
    assert main(["profile", str(measured)]) == 0
    assert read_trtexec(measured).kernels[0].time_ms == 0.5
    assert Path("profile.html").is_file()
    assert main(["profile", str(measured), "--output", "page.html"]) == 1
    assert main(["profile"]) == 1
    assert "profile.json is there and would be replaced" in capsys.readouterr().err
    assert read_trtexec(measured).kernels[0].time_ms == 0.5
    assert Path("page.html").read_text() == "<p>The user's.</p>"


@pytest.mark.parametrize("arguments", [["nothing.json"], ["empty.json"], ["nothing.onnx"], ["--output", "page.pdf"]])
def test_bad_input_is_one_line(project, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.json").write_text("[]")
    assert main(["profile", *arguments]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
