"""Sampling faces and what photography does to them."""

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.photos.alignment import TEMPLATE_224
from leanface.synthesis.accessories import accessorise
from leanface.synthesis.appearance import dress, shine
from leanface.synthesis.draws import Random
from leanface.synthesis.photography import background, photograph
from leanface.synthesis.surface import surface_of
from leanface.synthesis.synthesis import population, render_faces, sample_coefficients


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_seed_fixes_every_bit(model: MorphableModel) -> None:
    renderer = Renderer(model, 64)
    images = []
    for _ in range(2):
        random = generator(3)
        images.append(render_faces(renderer, sample_coefficients(model, 4, random), random, 1.0))
    assert torch.equal(images[0], images[1])
    assert not torch.equal(sample_coefficients(model, 4, generator(3)), sample_coefficients(model, 4, generator(4)))


def test_limits_hold(model: MorphableModel) -> None:
    parts = split(sample_coefficients(model, 500, generator(), yaw_max_rad=0.3, clip=1.5))
    assert parts.identity.abs().max() <= 1.5
    assert parts.albedo.abs().max() <= 1.5
    assert parts.angles_rad[:, 1].abs().quantile(0.9) <= 0.3


def test_identity_is_shared_by_consecutive_faces(model: MorphableModel) -> None:
    parts = split(sample_coefficients(model, 7, generator(), images_per_identity=3))
    assert torch.equal(parts.identity[0], parts.identity[2])
    assert torch.equal(parts.albedo[3], parts.albedo[5])
    assert not torch.equal(parts.identity[2], parts.identity[3])
    assert not torch.equal(parts.expression[0], parts.expression[1])


def test_faces_are_framed_as_photos_are_aligned(model: MorphableModel) -> None:
    parts = split(sample_coefficients(model, 400, generator()))
    vertices = model.vertices(parts.identity, parts.expression)[:, model.landmarks]
    seen = image_from_camera(camera_from_model(vertices, parts.angles_rad, parts.translation), 224)[..., :2]
    center = torch.from_numpy(TEMPLATE_224.mean(0)).float()
    offset = seen.mean(1) - center
    assert offset.mean(0).abs().max() < 1.0  # no bias
    assert offset.std(0).max() < 7.0  # the jitter of a detector


def test_threads_change_no_bit(model: MorphableModel) -> None:
    images, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            random = generator(3)
            coefficients = sample_coefficients(model, 8, random)
            images.append(render_faces(Renderer(model, 64, supersample=2), coefficients, random, 1.0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*images)


def test_nothing_waits_for_the_device_or_strays_from_it(model: MorphableModel) -> None:
    """Tensors made without a device would land on `meta` and could not be mixed with the others."""
    coefficients = sample_coefficients(model, 2, generator())
    renderer = Renderer(model, 64)
    render_faces(renderer, coefficients, generator(), 1.0)  # what is measured once may look at its values
    with torch.device("meta"), NoWaiting():
        sample_coefficients(model, 2, generator())
        random = Random(generator())
        surface, parts = surface_of(model), split(coefficients)
        vertices = model.vertices(parts.identity, parts.expression)
        dressed = dress(random, surface, vertices, model.albedo(parts.albedo), 1.0)
        shine(random, surface, surface.normals.expand(2, -1, -1), parts, 1.0)
        accessorise(random, model, vertices, dressed.albedo, parts, 1.0)
        photograph(random, background(random, 2, 64), 1.0)


class NoWaiting(TorchDispatchMode):
    """Refuses what would make a GPU's host wait: reading a value, or a shape that depends on values."""

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        name = func.overloadpacket.__name__
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "repeat_interleave"}, name
        assert not (name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])), name
        return func(*args, **(kwargs or {}))


def test_without_augmentation_a_face_is_the_clean_render_over_a_background(model: MorphableModel) -> None:
    renderer, random = Renderer(model, 64), generator(2)
    coefficients = sample_coefficients(model, 4, random)
    clean = renderer(coefficients)
    image = render_faces(renderer, coefficients, random, 0.0)
    covered = (clean.alpha == 1).expand_as(image)
    assert covered.float().mean() > 0.2
    assert torch.equal(image[covered], clean.image[covered].clamp(0, 1))
    assert image[(clean.alpha == 0).expand_as(image)].std() > 0.05


def test_most_faces_show_most_of_their_skin(model: MorphableModel) -> None:
    """The median face has nothing in front of it: the augmented picture still looks like the clean render."""
    renderer, random = Renderer(model, 64), generator(5)
    coefficients = sample_coefficients(model, 32, random)
    face = renderer.face_alpha(coefficients)
    clean, real = renderer(coefficients).image, render_faces(renderer, coefficients, random, 1.0)
    weight = face / face.sum((2, 3), keepdim=True)

    def standardized(image: Tensor) -> Tensor:
        gray = image.mean(1, keepdim=True)
        gray = gray - (gray * weight).sum((2, 3), keepdim=True)
        return gray / (gray.square() * weight).sum((2, 3), keepdim=True).sqrt()

    correlation = (standardized(clean) * standardized(real) * weight).sum((1, 2, 3))
    assert correlation.median() > 0.6


@pytest.mark.parametrize("augment", [0.0, 1.0])
def test_images_are_valid_whatever_happens(model: MorphableModel, augment: float) -> None:
    random = generator(1)
    images = render_faces(Renderer(model, 64), sample_coefficients(model, 8, random), random, augment)
    assert images.shape == (8, 3, 64, 64)
    assert torch.isfinite(images).all()
    assert 0 <= images.min() <= images.max() <= 1


def test_population_is_what_sampling_gives(model: MorphableModel) -> None:
    mean, deviation = population(model)
    sample = sample_coefficients(model, 5000, generator(9))
    assert ((sample.mean(0) - mean).abs() < 0.1 * deviation + 1e-3).all()
    assert ((sample.std(0) / deviation - 1).abs() < 0.1).all()
