"""Layers that stay in floating point: named ones, or the outliers of a sensitivity."""

import json
from pathlib import Path

import pytest

from leanface.errors import ArtifactError, ConfigError
from leanface.quantization.exclusion import MOST, OUTLIER, layers_excluded_from_quantization

LAYERS = [f"layer{index}" for index in range(12)]


def write(path: Path, errors_mm: dict[str, float]) -> Path:
    entries = {name: {"vertex_mm": value, "ssim": 0.99} for name, value in errors_mm.items()}
    path.write_text(json.dumps({"quantize": entries, "prune": {}}))
    return path


def errors_mm(**odd: float) -> dict[str, float]:
    return dict.fromkeys(LAYERS, 0.01) | odd


def test_names_are_kept_in_the_networks_order_and_read_no_file(tmp_path: Path) -> None:
    assert layers_excluded_from_quantization(["layer3", "layer1", "layer3"], LAYERS, tmp_path / "none") == (
        "layer1",
        "layer3",
    )
    assert layers_excluded_from_quantization([], LAYERS, tmp_path / "none") == ()


def test_an_unknown_name_is_refused_with_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not have: layer99\. Its convolutions are layer0, layer1, .*layer11"):
        layers_excluded_from_quantization(["layer1", "layer99"], LAYERS, tmp_path / "none")


def test_keeping_every_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing would be quantized"):
        layers_excluded_from_quantization(LAYERS, LAYERS, tmp_path / "none")


def test_auto_keeps_the_outliers(tmp_path: Path) -> None:
    just_under, over = 0.99 * OUTLIER * 0.01, 1.01 * OUTLIER * 0.01
    path = write(tmp_path / "sensitivity.json", errors_mm(layer7=over, layer2=just_under))
    assert layers_excluded_from_quantization("auto", LAYERS, path) == ("layer7",)


def test_auto_keeps_none_where_all_are_alike_and_the_worst_where_many_stand_out(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.json"
    assert layers_excluded_from_quantization("auto", LAYERS, write(path, errors_mm())) == ()
    assert layers_excluded_from_quantization("auto", LAYERS, write(path, dict.fromkeys(LAYERS, 0.0))) == ()
    odd = {name: 1.0 + index for index, name in enumerate(LAYERS[: MOST + 1])}
    assert layers_excluded_from_quantization("auto", LAYERS, write(path, errors_mm(**odd))) == tuple(
        LAYERS[1 : MOST + 1]
    )


def test_a_sensitivity_that_is_missing_damaged_or_of_another_network_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.json"
    with pytest.raises(ArtifactError, match=r"is missing, .* run stage analyze"):
        layers_excluded_from_quantization("auto", LAYERS, path)
    for text in ("{", "[]", '{"quantize": {"layer0": {}}}', '{"quantize": {"layer0": 3}}'):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=r"does not hold an error per layer .* run stage analyze"):
            layers_excluded_from_quantization("auto", LAYERS, path)
    with pytest.raises(ArtifactError, match="differ at layer11"):
        layers_excluded_from_quantization("auto", LAYERS, write(path, dict.fromkeys(LAYERS[:-1], 0.1)))
