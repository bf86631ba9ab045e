"""`leanface demo` as a browser sees it: a real process on the loopback interface, stopped by a signal in the end."""

import base64
import http.client
import io
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import trimesh
from PIL import Image

from leanface.cli import main
from leanface.photos.load import PACKAGED_PHOTOS, photo_path

pytest.importorskip("fastapi", reason="the extra `demo` is not installed")
pytest.importorskip("uvicorn", reason="the extra `demo` is not installed")


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        return json.loads(self.body)["error"]


class Server(NamedTuple):
    process: subprocess.Popen[str]
    port: int

    def ask(self, path: str, body: bytes | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        reply = Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return reply


@pytest.fixture(scope="module")
def server(exported: Any) -> Iterator[Server]:
    """One demo for all tests: the small network, and the bundle that it was exported from as the original."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--model", str(exported.fp32), "--compare", str(exported.float_bundle), "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "leanface", "demo", "--port", str(port), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        # Said once the networks are open and timed; the socket listens a moment later.
        said = []
        for line in process.stdout:
            said.append(line)
            if f"http://127.0.0.1:{port}" in line:
                break
        else:
            raise AssertionError("".join(said))
        _await_port(port)
        yield Server(process, port)
    finally:
        process.kill()
        process.wait()


def _await_port(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the demo does not listen")


def content_of(url: str, kind: str) -> bytes:
    head, _, data = url.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data)


def test_the_page_is_complete_and_loads_nothing_from_elsewhere(server: Server) -> None:
    page = server.ask("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"(?:https?:)?//[a-z0-9]", re.sub(r"^\s*//.*$", "", page.body.decode(), flags=re.M))
    (script,) = re.findall(r'<script[^>]* src="([^"]+)"', page.body.decode())
    viewer = server.ask(script)
    assert (viewer.status, viewer.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert b"model-viewer" in viewer.body
    for name in re.findall(r'data-name="(\w+)"', page.body.decode()):
        assert server.ask(f"/examples/{name}").body == photo_path(name).read_bytes()


def test_the_page_offers_every_packaged_photo(server: Server) -> None:
    assert set(re.findall(r'data-name="(\w+)"', server.ask("/").body.decode())) == set(PACKAGED_PHOTOS)


def test_a_photo_comes_back_as_pictures_numbers_and_textured_meshes(server: Server) -> None:
    reply = server.ask("/reconstruct?turntable=true", photo_path("astronaut").read_bytes())
    assert reply.status == 200
    answer = json.loads(reply.body)
    assert answer["distance_mm"] < 0.5  # the same network twice
    assert answer["turn_deg"] < 0.5
    assert [network["name"] for network in answer["networks"]] == ["original", "compressed"]
    assert all(network["network_ms"] > 0 for network in answer["networks"])
    sizes = {Image.open(io.BytesIO(content_of(url, "image/png"))).size for url in answer["pictures"].values()}
    assert list(answer["pictures"]) == ["input", "original", "compressed", "difference"]
    assert sizes == {(224, 224)}
    turns = Image.open(io.BytesIO(content_of(answer["turntable"]["pictures"], "image/jpeg")))
    assert turns.width == turns.height * answer["turntable"]["count"]
    assert list(answer["meshes"]) == ["original", "compressed"]
    for url in answer["meshes"].values():
        assert texture_of(content_of(url, "model/gltf-binary")).size == (1024, 1024)


def test_pictures_from_all_sides_are_drawn_only_if_asked_for(server: Server) -> None:
    answer = json.loads(server.ask("/reconstruct", photo_path("astronaut").read_bytes()).body)
    assert answer["turntable"] is None


def texture_of(glb: bytes) -> Image.Image:
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh.visual.material.baseColorTexture


def grey_photo() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (200, 200), "grey").save(stream, "PNG")
    return stream.getvalue()


def enormous_photo() -> bytes:
    """A PNG that says it has 64 million pixels, and has none."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0), b"IDAT"]
    packed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "empty"),
        (b"not a photo", 422, "not a photo that can be read"),
        (photo_path("grace_hopper").read_bytes()[:20_000], 422, "cannot read"),
        (grey_photo(), 422, "No face found in a photo of 200x200 pixels. Use an upright photo"),
        (enormous_photo(), 422, "8000 x 8000 pixels"),
        (bytes(20 * 2**20 + 1), 413, "20 MiB"),
    ],
    ids=["empty", "nonsense", "truncated", "no face", "enormous", "large"],
)
def test_what_cannot_be_read_is_refused_in_words(server: Server, body: bytes, status: int, text: str) -> None:
    reply = server.ask("/reconstruct", body)
    assert reply.status == status
    assert text in reply.error


def test_unknown_examples_are_refused(server: Server) -> None:
    assert server.ask("/examples/nobody").status == 404
    assert server.ask("/examples/..%2fpage.html").status == 404


def test_more_photos_than_may_wait_are_refused_and_given_up_uploads_forgotten(server: Server) -> None:
    uploads = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
    for upload in uploads:
        upload.sendall(b"POST /reconstruct HTTP/1.1\r\nHost: demo\r\nContent-Length: 1000\r\n\r\nhalf")
    assert _await_status(server, 503).error.startswith("The demo is busy")
    for upload in uploads:
        upload.close()
    assert _await_status(server, 400).error.startswith("The file is empty")


def _await_status(server: Server, status: int) -> Reply:
    """Of an empty photo; the server notices what happens on other connections a moment later."""
    for _ in range(100):
        if (reply := server.ask("/reconstruct", b"")).status == status:
            return reply
        time.sleep(0.05)
    raise AssertionError(f"expected {status}, got {reply}")


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# WebGL by the processor, and a camera that shows a file.
BROWSER_OPTIONS = (
    *("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)


class Browser(NamedTuple):
    """A browser with the demo's page, and everything that went wrong on it."""

    page: Any
    problems: list[str]

    def wait(self, script: str) -> None:
        """Until it is true; Playwright's own way needs `eval`, which the page forbids."""
        for _ in range(1200):
            if self.page.evaluate(script):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; {self.problems}")

    def wait_for_heads(self) -> None:
        self.wait("[...document.querySelectorAll('model-viewer')].every(viewer => viewer.loaded)")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    film = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    film.write_bytes(mjpeg_frame("grace_hopper"))
    options = [*BROWSER_OPTIONS, f"--use-file-for-fake-video-capture={film}"]
    with playwright.sync_playwright() as control:
        browser = control.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


def mjpeg_frame(name: str) -> bytes:
    photo = Image.open(photo_path(name)).convert("RGB")
    stream = io.BytesIO()
    photo.resize((480, 480 * photo.height // photo.width // 16 * 16)).save(stream, "JPEG", subsampling="4:2:0")
    return stream.getvalue()


@pytest.fixture
def browse(chromium: Any, server: Server) -> Iterator[Callable[..., Browser]]:
    """Opens the page; whatever it asks of other servers, and every error of its script, is a problem."""
    with ExitStack() as stack:

        def open_page(width: int, script: str = "") -> Browser:
            context = chromium.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
            stack.callback(context.close)
            page, problems = context.new_page(), list[str]()
            own = (f"http://127.0.0.1:{server.port}/", "blob:", "data:")
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
            page.on("request", lambda ask: None if ask.url.startswith(own) else problems.append(ask.url))
            page.add_init_script(script)
            page.goto(own[0])
            return Browser(page, problems)

        yield open_page


def test_an_uploaded_photo_becomes_two_textured_heads_that_turn_together(
    browse: Callable[..., Browser], tmp_path: Path
) -> None:
    browser = browse(800)
    page = browser.page
    page.set_input_files("#file", photo_path("astronaut"))
    browser.wait_for_heads()
    for name in ("original", "compressed"):
        texture = f"document.getElementById('{name}').model.materials[0].pbrMetallicRoughness.baseColorTexture.texture"
        assert page.evaluate(f"{texture} !== null")
    viewer = page.locator("#compressed")
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
    assert np.abs(pixels(viewer.screenshot()) - before).mean() > 5  # grey levels
    with page.expect_download() as download:
        page.click("#mesh")
    download.value.save_as(tmp_path / "face.glb")
    assert texture_of((tmp_path / "face.glb").read_bytes()).size == (1024, 1024)
    assert browser.problems == []


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)


def test_a_webcam_photo_is_taken_and_read_on_a_narrow_screen(browse: Callable[..., Browser]) -> None:
    browser = browse(390)
    browser.page.click("#webcam")
    browser.wait("document.querySelector('video').videoWidth > 0")
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


def test_an_interrupt_ends_it_quietly(server: Server) -> None:
    """The last test: nothing is there to ask afterwards."""
    server.process.send_signal(signal.SIGINT)
    output, _ = server.process.communicate(timeout=30)
    assert server.process.returncode in (0, -signal.SIGINT, 128 + signal.SIGINT)
    assert "Traceback" not in output


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "leanface.demo.app", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)  # as if it were not there
    assert main(["demo"]) == 1
    assert "leanface[demo]" in capsys.readouterr().err
