import numpy as np
import pytest

from leanface.metrics.image import WINDOW_PX, mse, ssim, whole_windows


@pytest.fixture
def picture() -> np.ndarray:
    """Smooth colors in [0,1] with an edge."""
    y, x = np.mgrid[0:48, 0:40] / 40
    disc = ((x - 0.5) ** 2 + (y - 0.6) ** 2 < 0.1).astype(float)
    return np.stack([0.2 + 0.4 * disc, x, 0.5 * y], axis=-1).astype(np.float32)


@pytest.fixture
def mask(picture: np.ndarray) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], dtype=bool)
    mask[10:30, 8:32] = True
    return mask


def noisy(picture: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(scale=sigma, size=picture.shape)
    return (picture + noise).clip(0, 1).astype(np.float32)


def test_a_picture_is_wholly_like_itself(picture, mask):
    assert ssim(picture, picture, data_range=1.0) == pytest.approx(1.0)
    assert ssim(picture, picture, data_range=1.0, mask=mask) == pytest.approx(1.0)
    assert mse(picture, picture) == 0.0


def test_the_order_of_the_pictures_does_not_matter(picture, mask):
    other = noisy(picture, 0.1)
    for chosen in (None, mask):
        assert ssim(picture, other, data_range=1.0, mask=chosen) == pytest.approx(
            ssim(other, picture, data_range=1.0, mask=chosen)
        )
        assert mse(picture, other, mask=chosen) == mse(other, picture, mask=chosen)


@pytest.mark.parametrize("use_mask", [False, True])
def test_more_noise_is_less_alike(picture, mask, use_mask):
    chosen = mask if use_mask else None
    steps = [noisy(picture, sigma) for sigma in (0.0, 0.02, 0.05, 0.1, 0.3)]
    likeness = [ssim(picture, other, data_range=1.0, mask=chosen) for other in steps]
    error = [mse(picture, other, mask=chosen) for other in steps]
    assert likeness == sorted(likeness, reverse=True)
    assert len(set(likeness)) == len(likeness)
    assert error == sorted(error)
    assert len(set(error)) == len(error)


def test_a_mask_leaves_out_what_lies_beyond_it(picture, mask):
    spoilt = picture.copy()
    reach = np.zeros_like(mask)
    half = WINDOW_PX // 2
    reach[10 - half : 30 + half, 8 - half : 32 + half] = True
    spoilt[~reach] = 1 - spoilt[~reach]
    assert ssim(picture, spoilt, data_range=1.0) < 0.9
    assert ssim(picture, spoilt, data_range=1.0, mask=mask) == pytest.approx(1.0)
    assert mse(picture, spoilt, mask=mask) == 0.0 < mse(picture, spoilt)


def test_a_full_mask_is_no_mask_for_mse(picture):
    other = noisy(picture, 0.1)
    everything = np.ones(picture.shape[:2], dtype=bool)
    assert mse(picture, other, mask=everything) == pytest.approx(mse(picture, other))


def test_whole_windows_see_nothing_beyond_the_mask(picture, mask):
    inner = whole_windows(mask)
    assert inner.sum() == (20 - WINDOW_PX + 1) * (24 - WINDOW_PX + 1)
    spoilt = picture.copy()
    spoilt[~mask] = 0
    assert ssim(picture, spoilt, data_range=1.0, mask=inner) == pytest.approx(1.0)


def test_the_unit_does_not_matter_if_the_range_goes_with_it(picture):
    other = noisy(picture, 0.1)
    assert ssim(picture * 7, other * 7, data_range=7.0) == pytest.approx(ssim(picture, other, data_range=1.0))


def test_a_known_mse():
    zeros, ones = np.zeros((8, 8, 3)), np.ones((8, 8, 3))
    mask = np.zeros((8, 8), dtype=bool)
    mask[:2] = True
    half = zeros.copy()
    half[:4] = 0.5
    assert mse(zeros, ones) == 1.0
    assert mse(zeros, half) == pytest.approx(0.125)
    assert mse(zeros, half, mask=mask) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("second", "mask", "message"),
    [
        (np.zeros((8, 9, 3)), None, "one shape"),
        (np.zeros((8, 8, 3)), np.ones((8, 8)), "bool mask"),
        (np.zeros((8, 8, 3)), np.ones((8, 9), dtype=bool), "bool mask"),
        (np.zeros((8, 8, 3)), np.zeros((8, 8), dtype=bool), "empty"),
    ],
)
def test_what_cannot_be_compared_is_refused(second, mask, message):
    for measure in (lambda a, b: ssim(a, b, data_range=1.0, mask=mask), lambda a, b: mse(a, b, mask=mask)):
        with pytest.raises(ValueError, match=message):
            measure(np.zeros((8, 8, 3)), second)


def test_a_picture_smaller_than_a_window_is_refused():
    small = np.zeros((WINDOW_PX - 1, 20, 3))
    with pytest.raises(ValueError, match="at least"):
        ssim(small, small, data_range=1.0)
