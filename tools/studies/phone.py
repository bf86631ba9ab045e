"""Converts the network for phones, to ncnn, and compares it with PyTorch's answers on this machine.

    python3 -m venv build/ncnn && build/ncnn/bin/pip install ncnn pnnx
    python -m tools.studies phone docs/results/phone --environment build/ncnn

pnnx brings a PyTorch of its own, so that it and ncnn live in an environment apart. Its converter takes the network that
ships before it is rounded to INT8, as TorchScript, and stores weights in FP16.
"""

import json
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float32

from leanface import bundle, paths
from leanface.device import describe_device, usable_cores
from leanface.errors import BackendError
from leanface.files import atomic_write, write_json
from leanface.metrics.ratio import MedianEstimate, estimate_median
from leanface.photos.load import load_photo
from leanface.reconstruction import LeanFace

NETWORK = paths.ASSETS / "leanface_fp16"
PHOTOS = ("astronaut", "grace_hopper")
WARMUP, RUNS = 10, 60

RUN = f"""
import json, sys, time
import ncnn, numpy as np

images, times, answers = np.load("images.npy"), [], []
with ncnn.Net() as net:
    net.opt.num_threads = int(sys.argv[1])
    net.load_param("network.ncnn.param")
    net.load_model("network.ncnn.bin")
    for run in range({WARMUP} + {RUNS}):
        image = ncnn.Mat(images[run % len(images)])
        start = time.perf_counter()
        with net.create_extractor() as extractor:
            extractor.input("in0", image)
            _, answer = extractor.extract("out0")
        times.append(1000 * (time.perf_counter() - start))
        if run < len(images):
            answers.append(np.array(answer))
np.save("answers.npy", np.stack(answers))
print(json.dumps({{"version": ncnn.__version__, "times_ms": times[{WARMUP}:]}}))
"""

TEXT = """# On a phone

`python -m tools.studies phone`: the network that ships, before it is rounded to INT8, converted by pnnx to ncnn
{version} ({size:.1f} MB, weights in FP16), on {cpu} with {threads} threads, {image} px, one image at a time.

| | |
|---|--:|
| Distance to PyTorch, FP32: coefficients of {count} crops, relative L2, at most | {worst:.2g} |
| Latency here (ms) | {latency} |
| INT8 in ncnn | not_run: it takes ncnn's own calibration, which was not tried |
| On a phone, ARM or Vulkan | not_run: there was none |

So the conversion is right. How fast it is on a phone, this machine cannot say.
"""


def main(folder: Path, environment: Path) -> None:
    """Convert, compare, and write README.md and phone.json.

    Raises:
        BackendError: the environment has no pnnx or no ncnn, or one of them fails.
    """
    images, expected = _expected()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        _convert(place, environment, images.shape[-1])
        np.save(place / "images.npy", images)
        measured: dict[str, Any] = json.loads(
            _run(place, environment / "bin/python", "-c", RUN, usable_cores()).splitlines()[-1]
        )
        answers = np.load(place / "answers.npy")
        size = sum((place / f"network.ncnn.{suffix}").stat().st_size for suffix in ("param", "bin"))
    distances = np.linalg.norm(answers - expected, axis=1) / np.linalg.norm(expected, axis=1)
    device = describe_device()
    text = TEXT.format(
        version=measured["version"],
        size=size / 1e6,
        cpu=device["cpu"],
        threads=usable_cores(),
        image=images.shape[-1],
        count=len(images),
        worst=distances.max(),
        latency=_text(estimate_median(measured["times_ms"])),
    )
    atomic_write(folder / "README.md", text)
    about = {"device": device, "size_bytes": size, "distances": distances.tolist()}
    write_json(folder / "phone.json", {**about, **measured})
    print(text)


def _expected() -> tuple[Float32[np.ndarray, "N 3 H W"], Float32[np.ndarray, "N 257"]]:
    """Return crops of real faces, mirrored and inverted ones too, and PyTorch's answers."""
    with LeanFace.load() as lean_face:
        crops = np.stack([lean_face.crop(load_photo(name), "largest")[0].crop for name in PHOTOS])
        images = lean_face.to_input(np.concatenate([crops, crops[:, :, ::-1], 255 - crops]))
    network, _ = bundle.load_bundle(NETWORK)
    with torch.inference_mode():
        return images, network.eval().float()(torch.from_numpy(images)).numpy()


def _convert(place: Path, environment: Path, size: int) -> None:
    network, _ = bundle.load_bundle(NETWORK)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is what pnnx reads
        cast(Any, torch.jit).trace(network.eval().float(), torch.zeros(1, 3, size, size)).save(place / "network.pt")
    _run(place, environment / "bin/pnnx", "network.pt", f"inputshape=[1,3,{size},{size}]")


def _run(place: Path, program: Path, *arguments: object) -> str:
    advice = f"`python3 -m venv {program.parents[1]} && {program.parent}/pip install ncnn pnnx` installs it."
    if not program.exists():
        raise BackendError(f"{program} is missing. {advice}")
    done = subprocess.run(
        [program.absolute(), *map(str, arguments)], cwd=place, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackendError(
            f"{program.name} failed ({(done.stderr.strip() or 'no message').splitlines()[-1]}). {advice}"
        )
    return done.stdout


def _text(estimate: MedianEstimate) -> str:
    return f"{estimate.value:.1f} ({estimate.low:.1f} to {estimate.high:.1f})"
