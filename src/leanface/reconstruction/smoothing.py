"""Holds the faces of a video steady: filters each person's readings over time.

Identity and skin do not change: they are averaged. Expression, pose, light and framing pass a One Euro filter, which
smooths much while a value rests and follows at once while it moves.

Source: Casiez, Roussel and Vogel, "1 Euro Filter", CHI 2012.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from leanface.face.coefficients import ALBEDO, ANGLES, COUNT, IDENTITY, TRANSLATION
from leanface.photos.alignment import Alignment
from leanface.photos.crops import FaceCrop, as_in_photo

MIN_CUTOFF_HZ = 1.5
SPEED_GAIN = 0.7
"""How much the cutoff rises with speed: Hz per unit and second, see `SCALES`."""

SPEED_CUTOFF_HZ = 1.0
AVERAGE_LENGTH = 60
"""Frames over which identity and albedo are averaged at least, once there are as many."""

SCALES: Float[np.ndarray, "260"] = np.ones(COUNT + 3)
"""What counts as one unit of motion: a standard deviation of a coefficient, 0.05 rad, 0.05 dm; of the framing, 5 % of
the scale and of the crop's side."""
SCALES[ANGLES] = SCALES[TRANSLATION] = 0.05
SCALES[COUNT:] = 0.05


@dataclass
class OneEuro:
    """Filters a vector that comes at uneven times."""

    value: np.ndarray | None = None
    speed: np.ndarray | None = None

    def __call__(self, value: np.ndarray, elapsed: float) -> np.ndarray:
        """Filter a value that comes `elapsed` seconds after the last one."""
        if self.value is None or self.speed is None or elapsed <= 0:
            self.value, self.speed = value, np.zeros_like(value)
            return value
        speed = (value - self.value) / elapsed
        self.speed = self.speed + _share(SPEED_CUTOFF_HZ, elapsed) * (speed - self.speed)
        cutoff_hz = MIN_CUTOFF_HZ + SPEED_GAIN * np.abs(self.speed)
        self.value = self.value + _share(cutoff_hz, elapsed) * (value - self.value)
        return self.value


@dataclass
class _Track:
    seconds: float
    side: float
    """Of the crop in the first frame (px of the photo): the unit of its place."""
    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(COUNT))
    filter: OneEuro = field(default_factory=OneEuro)


class Smoother:
    """Steadies the faces of one video; call it with every frame in order."""

    def __init__(self) -> None:
        self._tracks: dict[int | None, _Track] = {}

    def __call__(
        self, crops: Sequence[FaceCrop], coefficients: Float[np.ndarray, "N 257"], seconds: float
    ) -> tuple[list[FaceCrop], Float[np.ndarray, "N 257"]]:
        """Steady the framing and coefficients of a frame's faces; their order stays.

        Heads that were turned upright to be read are turned back: filters see what is in the video.
        """
        coefficients = as_in_photo(coefficients, crops)
        framed: list[FaceCrop] = []
        smooth = np.empty_like(coefficients)
        for index, crop in enumerate(crops):
            side = crop.alignment.size / crop.alignment.scale
            track = self._tracks.setdefault(crop.detection.number, _Track(seconds, side))
            alignment, smooth[index] = _filtered(track, crop.alignment, coefficients[index], seconds)
            track.seconds = seconds
            framed.append(crop._replace(alignment=alignment, turn_rad=0.0))
        return framed, smooth


def _filtered(
    track: _Track, alignment: Alignment, coefficients: np.ndarray, seconds: float
) -> tuple[Alignment, np.ndarray]:
    # The framing as its size and its middle in the photo.
    middle = alignment.photo_from_crop(np.full(2, (alignment.size - 1) / 2))
    framing = [math.log(alignment.size / alignment.scale), *(middle / track.side)]
    track.count += 1
    track.mean += (coefficients - track.mean) / min(track.count, AVERAGE_LENGTH)
    value = track.filter(np.concatenate([coefficients, framing]) / SCALES, seconds - track.seconds) * SCALES
    smooth = value[:COUNT].astype(np.float32)
    for part in (IDENTITY, ALBEDO):
        smooth[part] = track.mean[part]
    scale = alignment.size / math.exp(value[COUNT])
    shift = (alignment.size - 1) / 2 - scale * value[COUNT + 1 :] * track.side
    return Alignment(scale, float(shift[0]), float(shift[1]), alignment.size), smooth


def _share(cutoff_hz: float | np.ndarray, elapsed: float) -> float | np.ndarray:
    """Return the new value's share in a low-pass filter's answer."""
    rate = 2 * math.pi * cutoff_hz * elapsed
    return rate / (rate + 1)
