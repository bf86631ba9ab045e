"""The profile of our own kernels."""

from leanface.metrics.profile import layers
from leanface.runtime.profilers import profile_network


def test_each_kernel_of_the_int8_network_is_timed(exported) -> None:
    found = layers(profile_network(exported.int8, "triton_int8"))
    assert {"backbone.conv1", "backbone.layer4.0.conv3", "heads"} <= set(found)
    assert all(own.time_ms > 0 and own.size_bytes and own.precision == "i8" for own in found.values())
