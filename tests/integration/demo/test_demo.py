"""`leanface demo` as a browser sees it: a real process on the loopback interface, stopped by a signal in the end."""

import base64
import io
import json
import re
import signal
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from leanface.cli import main
from leanface.photos.load import PACKAGED_PHOTOS, photo_path
from tests.browsers import Browser, open_page, running_chromium
from tests.servers import Reply, Server, behind_proxy, running

pytest.importorskip("fastapi", reason="the extra `demo` is not installed")
pytest.importorskip("uvicorn", reason="the extra `demo` is not installed")


def read(server: Server, photo: bytes, query: str = "") -> Reply:
    return server.ask("POST", f"/reconstruct{query}", photo)


@pytest.fixture(scope="module")
def server(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One demo for all tests: the small network, and the bundle that it was exported from as the original."""
    options = ["--model", str(exported.fp32), "--compare", str(exported.float_bundle), "--threads", "1"]
    with running("demo", tmp_path_factory.mktemp("demo"), *options) as server:
        yield server


def content_of(url: str, kind: str) -> bytes:
    head, _, data = url.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data)


def test_the_page_is_complete_and_loads_nothing_from_elsewhere(server: Server) -> None:
    page = server.ask("GET", "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"(?:https?:)?//[a-z0-9]", re.sub(r"^\s*//.*$", "", page.body.decode(), flags=re.M))
    (script,) = re.findall(r'src: "([^"]+[.]js)"', page.body.decode())
    viewer = server.ask("GET", f"/{script}")
    assert (viewer.status, viewer.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert b"model-viewer" in viewer.body
    for name in re.findall(r'data-name="(\w+)"', page.body.decode()):
        assert server.ask("GET", f"/examples/{name}").body == photo_path(name).read_bytes()


def test_the_page_offers_every_packaged_photo(server: Server) -> None:
    assert set(re.findall(r'data-name="(\w+)"', server.ask("GET", "/").body.decode())) == set(PACKAGED_PHOTOS)


def test_a_photo_comes_back_as_pictures_numbers_and_textured_meshes(server: Server) -> None:
    reply = read(server, photo_path("astronaut").read_bytes(), "?turntable=true")
    assert reply.status == 200
    answer = json.loads(reply.body)
    assert answer["distance_mm"] < 0.5  # the same network twice
    assert answer["turn_deg"] < 0.5
    assert list(answer["networks"]) == ["teacher", "student"]
    assert all(network["network_ms"] > 0 for network in answer["networks"].values())
    assert [network["image_px"] for network in answer["networks"].values()] == [64, 64]
    sizes = {Image.open(io.BytesIO(content_of(url, "image/png"))).size for url in answer["pictures"].values()}
    assert list(answer["pictures"]) == ["input", "teacher", "student", "difference"]
    assert sizes == {(224, 224)}
    turns = Image.open(io.BytesIO(content_of(answer["turntable"]["pictures"], "image/jpeg")))
    assert turns.width == turns.height * answer["turntable"]["count"]
    assert list(answer["meshes"]) == ["teacher", "student"]
    for url in answer["meshes"].values():
        assert texture_of(content_of(url, "model/gltf-binary")).size == (1024, 1024)


def test_pictures_from_all_sides_are_drawn_only_if_asked_for(server: Server) -> None:
    answer = json.loads(read(server, photo_path("astronaut").read_bytes()).body)
    assert answer["turntable"] is None


def texture_of(glb: bytes) -> Image.Image:
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh.visual.material.baseColorTexture


def gray_photo() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (200, 200), "gray").save(stream, "PNG")
    return stream.getvalue()


def enormous_photo() -> bytes:
    """A PNG that says it has 64 million pixels, and has none."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0), b"IDAT"]
    packed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("body", "status", "kind", "text"),
    [
        (b"", 400, "not_a_photo", "empty"),
        (b"not a photo", 400, "not_a_photo", "not a photo that can be read"),
        (photo_path("grace_hopper").read_bytes()[:20_000], 400, "not_a_photo", "cannot read"),
        (gray_photo(), 422, "no_face", "No face found in a photo of 200x200 pixels. Use an upright photo"),
        (enormous_photo(), 413, "too_large", "8000 x 8000 pixels"),
        (bytes(20 * 2**20 + 1), 413, "too_large", "20,971,520 bytes"),
    ],
    ids=["empty", "nonsense", "truncated", "no face", "enormous", "large"],
)
def test_what_cannot_be_read_is_refused_in_words(
    server: Server, body: bytes, status: int, kind: str, text: str
) -> None:
    reply = read(server, body)
    assert (reply.status, reply.error) == (status, kind)
    assert text in reply.detail


def test_no_hostile_file_is_an_internal_error(server: Server, hostile: list[bytes]) -> None:
    for content in hostile:
        assert read(server, content).error in ("not_a_photo", "too_large", "no_face")


def frame(name: str) -> bytes:
    stream = io.BytesIO()
    Image.open(photo_path(name)).convert("RGB").crop((0, 0, 512, 600)).save(stream, "JPEG")
    return stream.getvalue()


def gray_frame() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (512, 600), "gray").save(stream, "JPEG")
    return stream.getvalue()


def test_a_webcam_s_frames_come_back_with_the_faces_drawn_over_them(server: Server) -> None:
    for content, faces in ((frame("astronaut"), "1"), (gray_frame(), "0"), (frame("astronaut"), "1")):
        reply = server.ask("POST", "/live?viewer=me", content)
        assert (reply.status, reply.headers["content-type"], reply.headers["leanface-faces"]) == (
            *(200, "image/jpeg"),
            faces,
        )
        drawn = np.asarray(Image.open(io.BytesIO(reply.body)), np.float32)
        changed = np.abs(drawn - np.asarray(Image.open(io.BytesIO(content)), np.float32)).mean(-1) > 40
        assert (changed.mean() > 0.01) == (faces == "1")
    both = server.ask("POST", "/live?viewer=me&both=true", frame("astronaut"))
    assert Image.open(io.BytesIO(both.body)).size == (2 * 512, 600)


@pytest.mark.parametrize(
    ("query", "body", "kind"),
    [
        ("?viewer=me", b"no frame", "not_a_photo"),
        ("?viewer=me", gray_photo(), "not_a_photo"),
        ("", gray_frame(), "bad_query"),
        (f"?viewer={'x' * 41}", gray_frame(), "bad_query"),
    ],
    ids=["nonsense", "a PNG", "no name", "a long name"],
)
def test_what_is_no_frame_of_a_webcam_is_refused(server: Server, query: str, body: bytes, kind: str) -> None:
    assert server.ask("POST", f"/live{query}", body).error == kind


def test_unknown_examples_are_refused(server: Server) -> None:
    assert server.ask("GET", "/examples/nobody").status == 404
    assert server.ask("GET", "/examples/..%2fpage.html").status == 404


@pytest.mark.parametrize("path", ["/", "/model-viewer.min.js", "/examples/astronaut", "/healthz"])
def test_every_route_answers_head_options_and_a_trailing_slash(server: Server, path: str) -> None:
    plain = server.ask("GET", path)
    head = server.ask("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(plain.body)))
    assert server.ask("GET", path + "/").body == plain.body
    assert server.ask("OPTIONS", path).headers["allow"] == "GET, HEAD, OPTIONS"
    assert server.ask("POST", path, b"x").error == "wrong_method"


@pytest.mark.parametrize("query", ["?turntabel=true", "?turntable=perhaps", "?turntable=true&turntable=false"])
def test_what_the_query_cannot_mean_is_refused(server: Server, query: str) -> None:
    assert read(server, b"x", query).error == "bad_query"


def test_more_photos_than_may_wait_are_told_to_come_back(server: Server) -> None:
    photo = photo_path("astronaut").read_bytes()
    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(lambda _: read(server, photo), range(12)))
    refused = [reply for reply in replies if reply.status != 200]
    assert 0 < len(refused) < 12
    assert {(reply.status, reply.error, reply.headers["retry-after"]) for reply in refused} == {(429, "busy", "1")}


def test_unfinished_uploads_keep_no_one_waiting(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(
                server.send(b"POST /reconstruct HTTP/1.1\r\nHost: demo\r\nContent-Length: 1000\r\n\r\nhalf")
            )
        assert read(server, photo_path("astronaut").read_bytes()).status == 200


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running_chromium(tmp_path_factory.mktemp("camera")) as browser:
        yield browser


@pytest.fixture
def browse(chromium: Any, server: Server) -> Iterator[Callable[..., Browser]]:
    """Opens the page."""
    with ExitStack() as stack:

        def browse(width: int, script: str = "", url: str = f"http://127.0.0.1:{server.port}/") -> Browser:
            context = chromium.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
            stack.callback(context.close)
            return open_page(context, url, script)

        yield browse


def test_an_uploaded_photo_becomes_two_textured_heads_that_turn_together(
    browse: Callable[..., Browser], tmp_path: Path
) -> None:
    browser = browse(800)
    page = browser.page
    page.set_input_files("#file", photo_path("astronaut"))
    browser.wait_for_heads()
    for name in ("teacher", "student"):
        texture = f"document.getElementById('{name}').model.materials[0].pbrMetallicRoughness.baseColorTexture.texture"
        assert page.evaluate(f"{texture} !== null")
    viewer = page.locator("#student")
    viewer.scroll_into_view_if_needed()
    before = pixels(viewer.screenshot())
    box = viewer.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y, steps=4)
    page.mouse.up()
    orbits = "[...document.querySelectorAll('model-viewer')].map(viewer => viewer.getCameraOrbit().theta)"
    browser.wait(f"{orbits}.every(angle => Math.abs(angle - 20 * Math.PI / 180) > 0.5)")
    browser.wait(f"Math.abs({orbits}[0] - {orbits}[1]) < 0.01")
    assert np.abs(pixels(viewer.screenshot()) - before).mean() > 5  # gray levels
    with page.expect_download() as download:
        page.click("#mesh")
    download.value.save_as(tmp_path / "face.glb")
    assert texture_of((tmp_path / "face.glb").read_bytes()).size == (1024, 1024)
    assert browser.problems == []


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)


def test_a_webcam_is_followed_and_its_photo_is_read_on_a_narrow_screen(browse: Callable[..., Browser]) -> None:
    browser = browse(390)
    browser.page.click("#webcam")
    browser.wait("/^[1-9][0-9]* frames per second/.test(document.getElementById('rate').textContent)")
    assert browser.page.is_visible("#live")
    assert browser.page.evaluate("document.documentElement.scrollWidth") <= 390
    browser.page.check("#both")
    browser.wait("document.getElementById('live').width > 1.5 * document.getElementById('live').height")
    browser.page.click("#shoot")
    browser.wait_for_heads()
    assert browser.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.page.is_hidden("#camera")
    assert browser.problems == []


def test_without_webgl_the_head_is_turned_in_pictures(browse: Callable[..., Browser]) -> None:
    browser = browse(1280, "HTMLCanvasElement.prototype.getContext = () => null")
    page = browser.page
    page.click("[data-name=astronaut]")
    page.wait_for_selector("#turntable", state="visible")
    place = "document.getElementById('turntable').style.backgroundPosition"
    before = page.evaluate(place)
    page.locator("#turn").press("ArrowRight")
    assert page.evaluate(place) != before
    assert page.is_hidden("#viewers")


def test_what_cannot_be_read_is_said_on_the_page_and_the_next_photo_works(
    browse: Callable[..., Browser], tmp_path: Path
) -> None:
    (tmp_path / "letter.jpg").write_bytes(b"not a photo")
    browser = browse(1280)
    browser.page.set_input_files("#file", tmp_path / "letter.jpg")
    browser.wait("document.getElementById('message').className === 'bad'")
    assert "not a photo that can be read" in browser.page.inner_text("#message")
    browser.page.set_input_files("#file", photo_path("astronaut"))
    browser.wait_for_heads()


@pytest.mark.parametrize("slash", ["/", ""])
def test_it_works_under_a_path_and_says_how_large_the_networks_are(
    browse: Callable[..., Browser], server: Server, slash: str
) -> None:
    with behind_proxy(server, "/my/faces") as url:
        browser = browse(1280, url=url + slash)
        page = browser.page
        browser.wait("[...document.querySelectorAll('#choose img')].every(image => image.naturalWidth > 0)")
        page.click("[data-name=grace_hopper]")
        browser.wait_for_heads()
        for name in ("teacher", "student"):
            assert "64\N{NO-BREAK SPACE}px" in page.inner_text(f"figure:has(#{name})")
        assert "Both read crops of 64\N{NO-BREAK SPACE}px" in page.inner_text("#summary")
        assert browser.problems == []


def test_an_interrupt_ends_it_quietly(server: Server) -> None:
    """The last test: nothing is there to ask afterwards."""
    assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in server.log.read_text()


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "leanface.demo.app", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)  # as if it were not there
    assert main(["demo"]) == 1
    assert "leanface[demo]" in capsys.readouterr().err
