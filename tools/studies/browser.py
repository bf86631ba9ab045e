"""Measures the site of `leanface export web` in Chromium.

    python -m tools.studies browser docs/results/browser

A frame of 640 x 480 px, as a webcam gives it, is read again and again in one page: the face is found anew each time.
The first answer is timed from the page's opening to the finished GLB, in a profile that has been on the page before.
"""

import base64
import shutil
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from playwright.sync_api import BrowserContext, Page, sync_playwright

from leanface import paths
from leanface.deployment.web import export_web
from leanface.device import describe_device, usable_cores
from leanface.errors import BackendError
from leanface.files import atomic_write, write_json
from leanface.metrics.ratio import MedianEstimate, estimate_median
from leanface.photos.load import photo_path

FRAME_PX = (640, 480)
WARMUP, FRAMES, VISITS = 20, 60, 9
STEPS = {"detection": "finding and aligning the face", "network": "the network", "decode": "decoding the shape"}
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
READY = "#file:not([disabled])"

READ = """async ({ photo, width, height, count }) => {
    const [{ ready }, { Photo }] = await Promise.all(["app.js", "images.js"].map(name => import(`./${name}`)));
    const data = Uint8ClampedArray.from(atob(photo), letter => letter.charCodeAt(0)), reader = await ready, times = [];
    for (let frame = 0; frame < count; frame++) {
        times.push((await reader.read(new Photo({ width, height, data }))).times);
        await new Promise(resolve => setTimeout(resolve, 0));
    }
    return times;
}"""

TEXT = """# In the browser

`python -m tools.studies browser`: the site of `leanface export web` ({size:.1f} MB) in Chromium {version}, on {cpu}
({cores} cores, WebAssembly on {threads} threads). Medians with 95 % intervals, in ms.

| | ms |
|---|--:|
{rows}

A frame is {width} x {height} px, and its face is found anew each time. The first answer is the time from the page's
opening to the finished GLB of the example photo, when the browser has been on the page before.
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def main(folder: Path) -> None:
    """Measure, and write README.md and browser.json.

    Raises:
        BackendError: there is no Chromium, or the npm package cannot be downloaded.
    """
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        raise BackendError(f"no browser: none of {', '.join(PROGRAMS)} is installed.")
    with tempfile.TemporaryDirectory() as temporary:
        site = Path(temporary) / "site"
        size = export_web(paths.PACKAGED_CPU_MODEL, paths.PACKAGED_MORPHABLE_MODEL, site)
        with _served(site) as url, sync_playwright() as control:
            options = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
            browser = control.chromium.launch(executable_path=program, args=options)
            context = browser.new_context()
            threads, frames = _frames(context, url)
            visits = [_first_answer(context, url) for _ in range(VISITS)]
            version = browser.version
            browser.close()
    measured = {STEPS[step]: estimate_median([frame[step] for frame in frames]) for step in STEPS}
    measured["**one frame**"] = estimate_median([sum(frame.values()) for frame in frames])
    measured["the first answer"] = estimate_median(visits)
    device = describe_device()
    width, height = FRAME_PX
    text = TEXT.format(
        size=size / 1e6,
        version=version,
        cpu=device["cpu"],
        cores=usable_cores(),
        threads=threads,
        rows="\n".join(f"| {name} | {_text(estimate)} |" for name, estimate in measured.items()),
        width=width,
        height=height,
    )
    atomic_write(folder / "README.md", text)
    about = {"device": device, "chromium": version, "threads": threads, "size_bytes": size}
    write_json(folder / "browser.json", {**about, "frames_ms": frames, "first_answers_ms": visits})
    print(text)


@contextmanager
def _served(site: Path) -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def _frames(context: BrowserContext, url: str) -> tuple[int, list[dict[str, float]]]:
    """Read a frame often; return the number of threads, and the times of each step."""
    page = _opened(context, url)
    with Image.open(photo_path("grace_hopper")) as photo:
        frame = np.asarray(ImageOps.pad(photo.convert("RGBA"), FRAME_PX, color="gray"))
    asked = {"photo": base64.b64encode(frame.tobytes()).decode(), "width": FRAME_PX[0], "height": FRAME_PX[1]}
    times = page.evaluate(READ, {**asked, "count": WARMUP + FRAMES})
    threads = page.evaluate("async () => (await import('./ort.min.js')).env.wasm.numThreads")
    page.close()
    return threads, times[WARMUP:]


def _first_answer(context: BrowserContext, url: str) -> float:
    start = time.perf_counter()
    page = _opened(context, url)
    page.click(".example")
    page.wait_for_selector("#result:not([hidden])")
    elapsed = 1000 * (time.perf_counter() - start)
    page.close()
    return elapsed


def _opened(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(READY, state="attached")
    return page


def _text(estimate: MedianEstimate) -> str:
    return f"{estimate.value:.0f} ({estimate.low:.0f} to {estimate.high:.0f})"
