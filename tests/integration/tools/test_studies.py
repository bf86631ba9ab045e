"""Ablations: variants, and results that survive a kill."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanface import bundle, paths
from leanface.config import FaceConfig, Quantize, load_face_config
from leanface.errors import ConfigError
from leanface.face.morphable_model import MorphableModel
from leanface.files import read_json
from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Magnitude
from leanface.pruning.prune import prune_channels
from leanface.stages import configure, quantize
from leanface.synthesis.prepare import prepare_faces
from tests.settings import FEW
from tools.studies.__main__ import main
from tools.studies.table import RESULT, read_results
from tools.studies.variants import DistillVariant, QuantizeVariant, read_variants


@pytest.fixture
def config(project: Path) -> FaceConfig:
    paths.PARAMS.write_text("scale: tiny\n")
    configure.run()
    return load_face_config(paths.CONFIG)


@pytest.mark.parametrize("table", sorted((Path(__file__).parents[3] / "tools/studies/tables").glob("*.yaml")))
def test_every_shipped_table_is_valid_and_its_variants_differ(table: Path, config: FaceConfig) -> None:
    kind = QuantizeVariant if table.stem == "quantize" else DistillVariant
    variants = list(read_variants(table, config, kind).values())
    assert len(variants) == len({variant.model_dump_json() for variant in variants})


def test_a_variant_changes_the_common_settings_which_change_the_configuration(
    config: FaceConfig, tmp_path: Path
) -> None:
    table = tmp_path / "table.yaml"
    table.write_text("common: {alpha: 0.5, temperature: 2}\nvariants: {a: {}, b: {alpha: 1, seed: 7}}\n")
    first, second = read_variants(table, config.model_copy(update={"seed": 3}), DistillVariant).values()
    assert (first.seed, second.seed) == (3, 7)
    assert first.distill == config.distill.model_copy(update={"alpha": 0.5, "temperature": 2.0})
    assert second.distill == first.distill.model_copy(update={"alpha": 1.0})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("variants: {a: {alpha: 2}}", "variant 'a'.*alpha"),
        ("variants: {a: {seed: -1.5}}", "variant 'a'.*seed"),
        ("variants: {a: {temper: 1}}", "variant 'a'.*temper"),
        ("variants: {}", "no table"),
        ("variants: {a/b: {}}", "no table"),
        ("variant: {a: {}}", "no table"),
        ("a: [", "no table"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(text: str, says: str, config: FaceConfig, tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"(?s){says}"):
        read_variants(tmp_path / "table.yaml", config, DistillVariant)


@pytest.fixture
def prepared(config: FaceConfig, model: MorphableModel, small_network: FaceReconstructionNet) -> FaceConfig:
    """A project with faces, an original and a pruned network."""
    paths.MORPHABLE_MODEL.parent.mkdir(parents=True)
    paths.MORPHABLE_MODEL.write_bytes(paths.PACKAGED_MORPHABLE_MODEL.read_bytes())
    prepare_faces(model, FEW, 0, paths.FACES)
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), paths.TEACHER)
    ratios = dict.fromkeys(ChannelGraph(small_network).groups(), 0.5)
    network, kept = prune_channels(small_network, ratios, Magnitude(), round_to=4)
    bundle.save_bundle(network, bundle.new_spec(network, 64, kept_channels=kept), paths.PRUNED)
    return config


def ablate(variants: dict[str, Any], stage: str = "distill") -> dict[str, int]:
    """Run a table; when each variant's result was written (in nanoseconds)."""
    only = {"distill": {"streamed": False, "alpha": 0.5}, "quantize": {"method": "ptq", "calibration_count": 4}}
    common = {**only[stage], "optimizer": {"batch_size": 4}}
    Path("table.yaml").write_text(yaml.safe_dump({"common": common, "variants": variants}, sort_keys=False))
    assert main(["ablate", stage, "--table", "table.yaml", "--steps", "2"]) == 0
    return {file.parent.name: file.stat().st_mtime_ns for file in (paths.ABLATIONS / "table").glob(f"*/{RESULT}")}


def test_variants_are_shared_among_processes_and_drawn_elsewhere(prepared: FaceConfig, tmp_path: Path) -> None:
    variants = {"first": {}, "second": {"alpha": 1.0}}
    common = {"streamed": False, "optimizer": {"batch_size": 4, "steps": 2}}
    Path("shared.yaml").write_text(yaml.safe_dump({"common": common, "variants": variants}, sort_keys=False))
    command, folder = ["ablate", "distill", "--table", "shared.yaml"], paths.ABLATIONS / "shared"

    assert main([*command, "--seconds", "1"]) == 75, "not even the first training fits"
    assert main([*command, "--share", "2/2"]) == 0
    assert [file.parent.name for file in folder.glob(f"*/{RESULT}")] == ["second"]
    assert main([*command, "--share", "1/2"]) == 0
    assert list(read_results(folder)) == list(variants), "in the table's order"
    assert main(["table", str(folder), str(tmp_path / "results")]) == 0
    assert (tmp_path / "results" / "table.csv").read_text() == (folder / "table.csv").read_text()


@pytest.mark.parametrize("share", ["0/2", "3/2", "1", "a/b"])
def test_a_wrong_share_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ablate", "distill", "--share", share])
    assert "expected 1/4" in capsys.readouterr().err


def test_what_is_done_is_not_done_again_and_the_table_grows(prepared: FaceConfig) -> None:
    folder, others = paths.ABLATIONS / "table", {"labels": {"alpha": 1.0, "seed": 1}}
    first = ablate({"mixed": {}})
    second = ablate({"mixed": {}, **others})
    assert first == {"mixed": second["mixed"]}

    rows = {row["variant"]: row for row in csv.DictReader((folder / "table.csv").read_text().splitlines())}
    assert list(rows) == ["mixed", "labels"]
    assert rows["labels"]["seed"] == "1"
    for row in rows.values():
        assert row["steps"] == "2"
        assert all(math.isfinite(float(row[name])) for name in ("teacher_vertex_mm", "truth_vertex_mm", "mse", "ssim"))
    assert (folder / "table.md").read_text().count("\n| ") == 3
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(read_json(folder / "mixed" / RESULT)["history"]) == 3

    # Other conditions are another training.
    third = ablate({"mixed": {"alpha": 0.25}, **others})
    assert third["mixed"] > second["mixed"]
    assert third["labels"] == second["labels"]


def test_quantized_variants_are_what_the_stage_makes_and_say_what_8_bits_move(prepared: FaceConfig) -> None:
    small_network, spec = bundle.load_network(paths.PRUNED)
    bundle.save_bundle(small_network, spec, paths.DISTILLED)
    kept = ["final_layers.0", "backbone.conv1"]
    variants = {
        "float": {"from": "float"},
        "max": {"calibration": "max"},
        "named": {"keep_fp16": kept},
        "qat": {"method": "qat"},
        "as_long": {"from": "float", "method": "qat"},
    }
    first = ablate(variants, "quantize")
    assert first.keys() == variants.keys()
    folder = paths.ABLATIONS / "table"
    metrics = {name: read_json(folder / name / RESULT)["metrics"] for name in variants}

    assert metrics["float"]["float_vertex_mm"] == 0
    assert metrics["float"]["over_float"] == 1
    assert metrics["as_long"]["float_vertex_mm"] > 0
    for name in ("max", "named", "qat"):
        assert metrics[name]["float_vertex_mm"] > 0
        assert metrics[name]["size_mb"] < metrics["float"]["size_mb"] / 2
    assert metrics["named"]["size_mb"] > metrics["max"]["size_mb"]
    assert {name for name, row in metrics.items() if "file/teacher_vertex_mm" in row} == {"max", "named", "qat"}
    rows = {row["variant"]: row for row in csv.DictReader((folder / "table.csv").read_text().splitlines())}
    assert (rows["as_long"]["steps"], rows["max"]["steps"]) == ("2", "0")
    assert "moved" in (folder / "table.md").read_text().splitlines()[0]

    assert ablate(variants, "quantize") == first

    settings = read_json(folder / "qat" / RESULT)["variant"]["quantize"]
    made = quantize.run(
        task=prepared.task,
        data=prepared.data,
        quantize=Quantize.model_validate(settings),
        distill=prepared.distill,
        machine=prepared.machine,
        seed=prepared.seed,
        log=lambda metrics, step: None,
    )
    for name in ("teacher_vertex_mm", "truth_posed_mm"):
        assert made[f"rounded/{name}"] == pytest.approx(metrics["qat"][name], rel=1e-5)
