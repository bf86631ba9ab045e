import math

import pytest
import torch

from leanface.face.coefficients import ANGLES, IDENTITY
from leanface.face.errors import rotation_angle_deg
from leanface.face.landmarks import landmarks_image
from leanface.face.render import Renderer
from leanface.tasks.face.jitter import SCALE, SHIFT, TURN_RAD, Jitter, reframe, sample_jitter, spread, undo_turn

SIZE = 64
NONE = Jitter(torch.zeros(1), torch.ones(1), torch.zeros(1, 2))


@pytest.fixture(scope="module")
def photo(model, sampled) -> torch.Tensor:
    return Renderer(model, SIZE, 2)(sampled[:1]).image[0]


def test_no_change_of_framing_changes_nothing(photo):
    assert torch.allclose(reframe(photo, NONE)[0], photo, atol=1e-4)


def test_draws_repeat_and_stay_in_range():
    jitter = sample_jitter(50)
    assert all(torch.equal(*pair) for pair in zip(jitter, sample_jitter(50), strict=True))
    assert float(jitter.turn_rad.abs().max()) <= TURN_RAD
    assert float((jitter.scale - 1).abs().max()) <= SCALE
    assert float(jitter.shift.abs().max()) <= SHIFT


def test_a_shift_moves_the_picture_right_and_down(photo):
    jitter = NONE._replace(shift=torch.tensor([[4 / SIZE, 2 / SIZE]]))
    assert torch.allclose(reframe(photo, jitter)[0, :, 2:, 4:], photo[:, :-2, :-4], atol=1e-4)


def test_a_turned_picture_is_the_face_rolled(model, sampled, photo):
    """Rendering the turned head and turning the picture give the same: so undoing the turn is exact."""
    turn = 0.2
    turned = undo_turn(sampled[:1], Jitter(torch.tensor([-turn]), torch.ones(1), torch.zeros(1, 2)))
    # The translation turns with the head about the camera's axis; the shape and the light in camera space do not.
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = sampled[0, 254], sampled[0, 255]
    turned[0, 254], turned[0, 255] = cos * x - sin * y, sin * x + cos * y
    points = landmarks_image(model, sampled[:1], SIZE)[0] - (SIZE - 1) / 2
    expected = torch.stack([cos * points[:, 0] + sin * points[:, 1], cos * points[:, 1] - sin * points[:, 0]], 1)
    assert torch.allclose(landmarks_image(model, turned, SIZE)[0] - (SIZE - 1) / 2, expected, atol=1e-3)
    silhouette = reframe((photo.sum(0, keepdim=True) > 0).float(), NONE._replace(turn_rad=torch.tensor([turn])))[0]
    rendered = Renderer(model, SIZE, 2)(turned).alpha[0]
    assert float((silhouette - rendered).abs()[:, 8:-8, 8:-8].mean()) < 0.02


def test_readings_that_do_not_differ_do_not_spread(model, sampled):
    assert spread(model, sampled[:1].expand(5, -1)) == pytest.approx({"jitter_mm": 0.0, "jitter_deg": 0.0}, abs=1e-4)


def test_the_spread_of_a_known_noise(model, sampled):
    """Roll with a deviation of 3 degrees; and twice the noise in shape spreads twice as far."""
    readings = sampled[:1].repeat(400, 1)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0))
    readings[:, ANGLES.stop - 1] += math.radians(3) * noise
    assert spread(model, readings[:, :])["jitter_deg"] == pytest.approx(3.0, rel=0.1)
    shapes = [sampled[:1].repeat(20, 1) for _ in range(2)]
    for factor, shape in enumerate(shapes, 1):
        shape[:, IDENTITY] += factor * torch.randn(20, 80, generator=torch.Generator().manual_seed(1))
    once, twice = (spread(model, shape)["jitter_mm"] for shape in shapes)
    assert twice == pytest.approx(2 * once, rel=1e-3)


def test_two_poses_spread_by_half_their_angle(model, sampled):
    pair = sampled[:1].repeat(2, 1)
    pair[1, ANGLES] += torch.tensor([0.1, 0.05, -0.1])
    angle_deg = float(rotation_angle_deg(pair[:1, ANGLES], pair[1:, ANGLES]))
    assert spread(model, pair)["jitter_deg"] == pytest.approx(angle_deg / 2, rel=1e-3)
