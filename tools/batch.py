"""Measure how many photos a second one and two workers of `leanface reconstruct --cluster` do on this machine.

    python -m tools.batch

Each worker has one core; Ray and what drives it run on the same cores. Photos and results lie in a temporary folder.
The first quarter is not counted: Ray starts, and the workers load their networks.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageEnhance

from leanface.batch.cluster import check_machines, outcomes
from leanface.batch.storage import Storage
from leanface.batch.worker import Job, describe
from leanface.cluster import joined
from leanface.photos.load import PACKAGED_PHOTOS, load_photo
from leanface.reconstruction.outputs import Settings

CHUNK = 8
SETTINGS = {"heads": Settings(pictures=False), "coefficients": Settings(mesh=None, texture_px=0, pictures=False)}


def main() -> None:
    """Measure in turns, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=320, help="(default: 320)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--workers", type=int, nargs=2, default=[1, 2], help="(default: 1 2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _write_photos(Path(folder) / "photos", options.photos)
        for name, settings in SETTINGS.items():
            speeds: dict[int, list[float]] = {count: [] for count in options.workers}
            for number in range(options.rounds):
                for count in options.workers:
                    out = Path(folder) / f"{name}_{number}_{count}"
                    speeds[count].append(_photos_per_second(Path(folder) / "photos", out, settings, count))
            few, many = options.workers
            ratios = sorted(b / a for a, b in zip(speeds[few], speeds[many], strict=True))
            each = ", ".join(f"{count} workers {statistics.median(each):.1f}" for count, each in speeds.items())
            print(
                f"{name}: {each} photos/s; ratio {statistics.median(ratios):.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rounds)",
                flush=True,
            )


def _photos_per_second(photos: Path, folder: Path, settings: Settings, workers: int) -> float:
    made_with = describe(settings, None, "cpu", str(photos))
    job = Job(str(photos), str(folder), settings, None, "cpu", 1, 0, CHUNK, made_with)
    times: list[tuple[float, int]] = []
    with Storage(str(folder)).alone(), joined(None, workers) as ray:
        for outcome in outcomes(ray, job, check_machines(ray, job)):
            if outcome.problem is not None or outcome.failed:
                raise RuntimeError(str(outcome))
            if outcome.chunk.photos:
                times.append((time.perf_counter(), len(outcome.chunk.photos)))
    begun = len(times) // 4
    return sum(count for _, count in times[begun:]) / (times[-1][0] - times[begun - 1][0])


def _write_photos(folder: Path, count: int) -> None:
    folder.mkdir()
    portraits = [Image.fromarray(load_photo(name)) for name in PACKAGED_PHOTOS]
    for number in range(count):
        photo = ImageEnhance.Brightness(portraits[number % 2]).enhance(0.8 + 0.4 * number / count)
        photo.save(folder / f"{number:05d}.jpg", quality=92)


if __name__ == "__main__":
    main()
