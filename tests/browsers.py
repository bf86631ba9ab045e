"""A real browser, as visitors use it."""

import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from leanface.photos.load import photo_path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# WebGL by the processor, and a camera that shows a file.
BROWSER_OPTIONS = (
    *("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)


class Browser(NamedTuple):
    """A browser with a page, and everything that went wrong on it."""

    page: Any
    problems: list[str]

    def wait(self, script: str) -> None:
        """Until it is true; Playwright's own way needs `eval`, which the pages forbid."""
        for _ in range(1200):
            if self.page.evaluate(script):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; {self.problems}")

    def wait_for_heads(self) -> None:
        self.wait("[...document.querySelectorAll('model-viewer')].every(viewer => viewer.loaded)")


@contextmanager
def running_chromium(folder: Path) -> Iterator[Any]:
    """Start Chromium; its camera shows Grace Hopper, from a file in a folder."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    film = folder / "face.mjpeg"
    film.write_bytes(_mjpeg_frame("grace_hopper"))
    options = [*BROWSER_OPTIONS, f"--use-file-for-fake-video-capture={film}"]
    with playwright.sync_playwright() as control:
        browser = control.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


def open_page(context: Any, url: str, script: str = "") -> Browser:
    """Open a page; whatever it asks of other servers, and every error of its scripts, is a problem."""
    page, problems = context.new_page(), list[str]()
    own = (url, "blob:", "data:")
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("request", lambda ask: None if ask.url.startswith(own) else problems.append(ask.url))
    page.add_init_script(script)
    page.goto(url)
    return Browser(page, problems)


def _mjpeg_frame(name: str) -> bytes:
    photo = Image.open(photo_path(name)).convert("RGB")
    stream = io.BytesIO()
    photo.resize((480, 480 * photo.height // photo.width // 16 * 16)).save(stream, "JPEG", subsampling="4:2:0")
    return stream.getvalue()
