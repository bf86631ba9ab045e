"""What a worker makes of photos, and of files that are none: thousands of them, never an internal error."""

import io
import json
import random
import resource

import numpy as np
import pytest
import trimesh
from PIL import Image

from leanface.errors import BackendError
from leanface.serving.messages import Job
from leanface.serving.photos import decode
from leanface.serving.refusals import FAILURES, Refused
from leanface.serving.settings import Gpu, Settings
from leanface.serving.worker import Reader

PIXELS = 2_000_000


@pytest.fixture(scope="module")
def reader(service_settings: Settings) -> Reader:
    reader = Reader(service_settings, threads=1)
    assert reader.ready().precision == "int8"
    return reader


def test_every_format_holds_the_face(reader: Reader, photo: bytes) -> None:
    formats = ("json", "glb", "png")
    answers = dict(zip(formats, reader.read([Job(photo, format) for format in formats]), strict=True))
    assert [answer.error for answer in answers.values()] == [None] * 3
    (face,) = json.loads(answers["json"].body)["faces"]
    assert len(face["coefficients"]["identity"]) == 80
    mesh = trimesh.load(io.BytesIO(answers["glb"].body), file_type="glb", force="mesh")
    assert len(mesh.faces) > 10_000
    assert Image.open(io.BytesIO(answers["png"].body)).size == (240, 240)
    assert {"decode", "detect", "network", "encode"} == set(answers["glb"].steps_ms)
    assert answers["json"].batch == 3
    assert answers["json"].features.shape == (1, 5)


def test_a_batch_answers_as_single_photos_do(reader: Reader, photo: bytes, faceless: bytes) -> None:
    mixed = list(reader.read([Job(b"nothing"), Job(photo), Job(faceless), Job(photo)]))
    assert [answer.error for answer in mixed] == ["not_a_photo", None, "no_face", None]
    (alone,) = reader.read([Job(photo)])
    first, again = (json.loads(answer.body)["faces"] for answer in (mixed[1], alone))
    assert np.allclose(first[0]["coefficients"]["identity"], again[0]["coefficients"]["identity"], atol=1e-4)
    assert first[0]["detection"] == again[0]["detection"]


def test_a_network_that_fails_is_said_of_each_photo_and_ends_nothing(service_settings: Settings, photo: bytes) -> None:
    reader = Reader(service_settings, threads=1)
    reader.face.close()
    answers = list(reader.read([Job(photo), Job(b"nothing"), Job(photo)]))
    assert [answer.error for answer in answers] == ["internal", "not_a_photo", "internal"]
    assert answers[0].detail == "BackendError in step network"


def test_a_gpus_worker_does_not_run_on_the_processor_instead(service_settings: Settings) -> None:
    settings = service_settings.model_copy(update={"devices": (Gpu(0, "GPU-a"),), "runtime": "auto"})
    with pytest.raises(BackendError, match=r"no runtime can run any of .*int8\.onnx:\n  triton_int8: "):
        Reader(settings, threads=1)


def test_the_texture_is_in_the_mesh(reader: Reader, photo: bytes) -> None:
    plain, textured = reader.read([Job(photo, "glb"), Job(photo, "glb", texture=512)])
    mesh = trimesh.load(io.BytesIO(textured.body), file_type="glb", force="mesh")
    assert mesh.visual.material.baseColorTexture.size == (512, 512)
    assert plain.body != textured.body


def test_hostile_files_are_refused_and_none_is_an_internal_error(reader: Reader, hostile: list[bytes]) -> None:
    for answer in reader.read([Job(content) for content in hostile]):
        assert answer.error in ("not_a_photo", "too_large", "no_face")
        assert answer.detail


def test_a_bomb_is_refused_before_it_is_decoded(bomb: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Refused, match="9000 x 9000 pixels") as refused:
        decode(bomb, PIXELS)
    assert refused.value.kind == "too_large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_thousands_of_random_and_damaged_files_never_fail_otherwise(photo: bytes, faceless: bytes) -> None:
    """3,000 random strings, 2,000 photos with random bytes changed, 1,000 with a piece lost or doubled."""
    chance = random.Random(0)
    starts = (b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x10\x00\x00WEBPVP8X")
    small = Image.open(io.BytesIO(photo)).resize((64, 64))
    seeds = []
    for kind in ("JPEG", "PNG", "WEBP"):
        buffer = io.BytesIO()
        small.save(buffer, kind)
        seeds.append(buffer.getvalue())

    def damaged() -> bytes:
        content = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 12)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        return bytes(content)

    def torn() -> bytes:
        content = chance.choice(seeds)
        first, second = sorted(chance.choices(range(len(content)), k=2))
        return content[:first] + content[second:] if chance.random() < 0.5 else content[:second] + content[first:]

    files = [chance.choice(starts) + chance.randbytes(chance.randrange(2000)) for _ in range(3000)]
    files += [damaged() for _ in range(2000)] + [torn() for _ in range(1000)]
    kinds = {"read": 0, "not_a_photo": 0, "too_large": 0, "no_face": 0}
    for content in files:
        try:
            image = decode(content, PIXELS)
        except Refused as refused:
            kinds[refused.kind] += 1
        else:
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
            kinds["read"] += 1
    assert kinds["not_a_photo"] > 3000
    assert kinds["read"] > 300  # many damaged photos are photos


def test_no_photo_is_the_services_fault(reader: Reader, hostile: list[bytes], bomb: bytes) -> None:
    assert not {answer.error for answer in reader.read([Job(content) for content in [*hostile, bomb]])} & set(FAILURES)


def test_a_tiny_picture_has_no_face() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    with pytest.raises(Refused, match="too few"):
        decode(buffer.getvalue(), PIXELS)


def test_only_so_many_faces_are_read(service_settings: Settings, photo: bytes) -> None:
    reader = Reader(service_settings.model_copy(update={"faces_max": 1}), threads=1)
    twice = Image.new("RGB", (480, 240))
    face = Image.open(io.BytesIO(photo))
    twice.paste(face, (0, 0))
    twice.paste(face, (240, 0))
    buffer = io.BytesIO()
    twice.save(buffer, "PNG")
    (answer,) = reader.read([Job(buffer.getvalue())])
    assert len(json.loads(answer.body)["faces"]) == 1
