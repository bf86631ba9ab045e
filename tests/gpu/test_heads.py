"""Textures, their files and streams on the GPU are those of the CPU."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from leanface import LeanFace, load_photo
from leanface.face.jpeg import encode_jpeg
from leanface.reconstruction.streams import Streams


@pytest.fixture(scope="module")
def on_cpu() -> Iterator[LeanFace]:
    with LeanFace.load(runtime="cpu") as lean_face:
        yield lean_face


@pytest.fixture(scope="module")
def on_gpu() -> Iterator[LeanFace]:
    with LeanFace.load() as lean_face:
        assert lean_face.on_gpu
        yield lean_face


@pytest.mark.parametrize(("size", "delight"), [(512, True), (4096, False)])
def test_textures_are_painted_alike(on_cpu: LeanFace, on_gpu: LeanFace, size: int, delight: bool) -> None:
    photo = load_photo("astronaut")
    (face,) = on_cpu.reconstruct(photo, faces="largest")
    textures = [each.textured(face, photo, size, delight=delight).texture for each in (on_cpu, on_gpu)]
    assert textures[0] is not None
    assert textures[1] is not None
    difference = np.abs(textures[0].astype(int) - textures[1])
    assert difference.mean() < 1
    assert (difference > 8).mean() < 1e-3  # a texel whose center lies on an edge of the depth map may go either way


def test_the_gpu_encodes_the_same_picture(on_gpu: LeanFace) -> None:
    (face,) = on_gpu.reconstruct(load_photo("astronaut"), faces="largest", texture_size=1024)
    assert face.texture is not None
    contents = [encode(face.texture, 90) for encode in (encode_jpeg, face.surface.encode_jpeg)]
    by_cpu, by_gpu = (np.asarray(Image.open(io.BytesIO(content))).astype(int) for content in contents)
    assert contents[0] != contents[1]
    assert np.abs(by_cpu - by_gpu).mean() < 2
    assert len(contents[1]) < 1.6 * len(contents[0])
    assert contents[1] in face.encode_mesh()["face.glb"]


def test_streams_are_decoded_alike(on_cpu: LeanFace, on_gpu: LeanFace) -> None:
    photo = load_photo("grace_hopper")
    with Streams(on_cpu, 3, "largest") as slow, Streams(on_gpu, 3, "largest") as fast:
        for step in range(2):
            frames = [np.ascontiguousarray(photo[4 * stream + step :]) for stream in range(3)]
            for one, other in zip(slow(frames, step / 30), fast(frames, step / 30), strict=True):
                assert one.crops[0].detection.number == other.crops[0].detection.number == 1
                for row, vertices in zip(other.coefficients, other.vertices_camera, strict=True):
                    decoded = on_cpu.surface.decoder.decode(row).vertices_camera
                    np.testing.assert_allclose(vertices, decoded, atol=1e-5)
                # Of the network's rounding to 8 bits, which differs with the flavor.
                assert np.abs(one.vertices_camera - other.vertices_camera).max() < 0.01
