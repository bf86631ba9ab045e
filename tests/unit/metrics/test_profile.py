"""Profiles: which layer a kernel belongs to, and what a layer sums up to."""

from pathlib import Path

import pytest

from leanface.errors import ArtifactError
from leanface.metrics.profile import Kernel, Profile, layer_of, layers, read_profiles, save_profiles


def kernel(layer: str, time_ms: float, *, reformats: bool = False, size_bytes: int | None = 8) -> Kernel:
    return Kernel(
        name=f"{layer}_kernel", layer=layer, kind="Reorder" if reformats else "Convolution", time_ms=time_ms,
        size_bytes=size_bytes, precision="f32" if reformats else "i8", reformats=reformats,
    )  # fmt: skip


def profile(*kernels: Kernel, latency_ms: float | None = None) -> Profile:
    return Profile(
        title="network", runtime="openvino", batch=1, image_size=64, threads=1, device="a processor",
        latency_ms=latency_ms, kernels=kernels,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("/backbone/layer1/layer1.0/conv1/Conv", "backbone.layer1.0.conv1"),
        ("/backbone/layer1/layer1.0/conv1/Conv/WithoutBiases", "backbone.layer1.0.conv1"),
        ("/backbone/layer1/layer1.0/conv1/input_quantizer/QuantizeLinear", "backbone.layer1.0.conv1"),
        ("/backbone/layer2/layer2.0/downsample/downsample.0/Conv", "backbone.layer2.0.downsample.0"),
        ("/Concat", "/Concat"),
        ("Reshape_15", "Reshape_15"),
    ],
)
def test_a_node_belongs_to_a_layer(node: str, layer: str) -> None:
    assert layer_of(node) == layer


def test_a_layer_sums_up_its_kernels() -> None:
    found = layers(profile(kernel("a", 1, reformats=True), kernel("b", 4), kernel("a", 2)))
    assert list(found) == ["a", "b"]
    assert (found["a"].time_ms, found["a"].reformat_ms, found["a"].size_bytes, found["a"].precision) == (3, 1, 16, "i8")


def test_a_size_that_is_not_known_makes_no_sum() -> None:
    assert layers(profile(kernel("a", 1), kernel("a", 1, size_bytes=None)))["a"].size_bytes is None


@pytest.mark.parametrize(
    ("latency_ms", "covers"), [(10.0, True), (9.2, True), (8.9, False), (11.2, False), (None, False)]
)
def test_the_sum_is_compared_with_the_latency(latency_ms: float | None, covers: bool) -> None:
    assert profile(kernel("a", 6), kernel("b", 4), latency_ms=latency_ms).covers is covers


def test_a_saved_profile_is_read_again(tmp_path: Path) -> None:
    own = (profile(kernel("a", 1), latency_ms=1.0),)
    save_profiles(own, tmp_path / "profile.json")
    assert read_profiles(tmp_path / "profile.json") == own


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"title": "network"}]'])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "profile.json").write_bytes(content)
    with pytest.raises(ArtifactError, match="is no profile"):
        read_profiles(tmp_path / "profile.json")
