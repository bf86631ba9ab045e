"""Random faces and what photography does to them: coefficients, backgrounds, hair, blur, noise, compression.

Everything is batched PyTorch, driven by one generator, and runs where the morphable model lies (CPU or CUDA).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from leanface.face.camera import DISTANCE_DM, FOCAL_PX, REFERENCE_SIZE_PX, camera_from_model, image_from_camera
from leanface.face.coefficients import Coefficients, join
from leanface.face.lighting import CONSTANT, sh_basis
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer

YAW_MAX_RAD = 0.8
CLIP_SIGMA = 2.0


class Random:
    """Shorthand for draws from one generator on one device."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.device = generator.device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator, device=self.device)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """1.0 with that probability, else 0.0."""
        return (self.uniform(0.0, 1.0, *shape) < probability).float()


def seed_of(*parts: int) -> int:
    """One seed from several numbers.

    PyTorch's CPU generator looks at a seed's lowest 32 bits only, so numbers must be mixed, not shifted.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])


def sample_coefficients(
    model: MorphableModel,
    count: int,
    generator: Generator,
    *,
    yaw_max_rad: float = YAW_MAX_RAD,
    clip: float = CLIP_SIGMA,
    images_per_identity: int = 1,
) -> Float[Tensor, "count 257"]:
    """Random faces, framed as `leanface.data.alignment` frames a photo, give or take a detector's errors.

    Identity and albedo are shared by `images_per_identity` consecutive faces.
    """
    random = Random(generator)
    people = math.ceil(count / images_per_identity)

    def shared(size: int) -> Tensor:
        return random.normal(people, size).clamp(-clip, clip).repeat_interleave(images_per_identity, 0)[:count]

    identity, albedo = shared(80), shared(80)
    expression = random.normal(count, 64).clamp(-clip, clip) * random.uniform(0.2, 1.15, count, 1)
    # Half of all portraits look near the camera, the others anywhere.
    yaw = torch.where(
        random.chance(0.4, count) > 0, 0.12 * random.normal(count), random.uniform(-yaw_max_rad, yaw_max_rad, count)
    )
    angles_rad = torch.stack([0.15 * random.normal(count), yaw, 0.12 * random.normal(count)], -1)
    translation = _framing(model, identity, expression, angles_rad)
    translation = translation + torch.cat([0.035 * random.normal(count, 2), 0.2 * random.normal(count, 1)], -1)
    return join(Coefficients(identity, expression, albedo, angles_rad, _sample_lighting(random, count), translation))


def _framing(model: MorphableModel, identity: Tensor, expression: Tensor, angles_rad: Tensor) -> Tensor:
    """The translation (B,3) at which the five landmarks lie, by least squares, on the mean frontal face's.

    Scale and shift in the image, the alignment's two freedoms, become depth and sideways motion.
    """
    size = REFERENCE_SIZE_PX
    index = (model.landmarks[:, None] * 3 + torch.arange(3, device=model.landmarks.device)).flatten()
    offsets = identity @ model.identity_basis[:, index] + expression @ model.expression_basis[:, index]
    mean = model.mean_vertices[model.landmarks]
    zero = torch.zeros_like(angles_rad)
    seen = image_from_camera(camera_from_model(mean + offsets.view(-1, 5, 3), angles_rad, zero), size)[..., :2]
    template = image_from_camera(mean[None], size)[..., :2]
    seen_centre, template_centre = seen.mean(1, keepdim=True), template.mean(1, keepdim=True)
    spread = seen - seen_centre
    scale = ((spread * (template - template_centre)).sum((1, 2)) / spread.square().sum((1, 2))).clamp(0.75, 1.35)
    depth = DISTANCE_DM / scale
    centre = (size - 1) / 2
    shift_px = (template_centre[:, 0] - centre) - scale[:, None] * (seen_centre[:, 0] - centre)
    shift = shift_px * depth[:, None] / FOCAL_PX
    return torch.stack([shift[:, 0], -shift[:, 1], DISTANCE_DM - depth], -1)


def _sample_lighting(random: Random, count: int) -> Float[Tensor, "count 27"]:
    """Ambient light and two lamps, mostly in front of the face, each slightly tinted."""
    gamma = torch.zeros(count, 9, 3, device=random.device)
    tint = 1 + 0.04 * random.normal(count, 3)
    gamma[:, 0] = random.uniform(0.2, 0.75, count, 1) * (1 + 0.04 * random.normal(count, 3))
    for strength, spread in ((random.uniform(0.3, 1.2, count), 0.8), (random.uniform(-0.4, 0.4, count), 1.5)):
        direction = random.normal(count, 3) * spread
        direction[:, 1] += 0.3
        direction[:, 2] = direction[:, 2].abs() + 0.6
        lamp = sh_basis(F.normalize(direction, dim=-1)) * strength.clamp_min(0)[:, None] * 0.155 / CONSTANT
        gamma = gamma + lamp[:, :, None] * (1 + 0.04 * random.normal(count, 1, 3))
    gamma = gamma * tint[:, None] + 0.008 * random.normal(count, 9, 1) + 0.003 * random.normal(count, 9, 3)
    return gamma.flatten(1)


def population(model: MorphableModel, count: int = 20_000) -> tuple[Float[Tensor, "257"], Float[Tensor, "257"]]:
    """Mean and standard deviation of the sampled coefficients (fixed seed)."""
    generator = Generator(model.mean_vertices.device).manual_seed(1)
    sample = sample_coefficients(model, count, generator)
    return sample.mean(0), sample.std(0)


def render_faces(
    renderer: Renderer, coefficients: Float[Tensor, "batch 257"], generator: Generator, augment: float
) -> Float[Tensor, "batch 3 size size"]:
    """Faces over random backgrounds, as a camera would deliver them: float32 in [0,1].

    Args:
        augment: 0 gives clean renders over backgrounds, 1 the full range of what can go wrong.
    """
    random = Random(generator)
    image, alpha = renderer(coefficients)
    size = image.shape[-1]
    image = image + _background(random, len(image), size) * (1 - alpha)
    if augment > 0:
        image = _hair(random, image, 0.4 * augment)
        image = _occlude(random, image, 0.12 * augment)
        image = _photograph(random, image, augment)
    return image.clamp(0.0, 1.0)


def _background(random: Random, count: int, size: int) -> Tensor:
    """Smooth colour fields with blocks and clutter."""
    coarse = random.uniform(0, 0.5, count, 1, 4, 4) + random.uniform(0, 0.4, count, 3, 1, 1)
    coarse = coarse + random.uniform(0, 0.15, count, 3, 4, 4)
    fine = (random.uniform(-0.5, 0.5, count, 1, 24, 24)) * random.uniform(0, 0.5, count, 1, 1, 1)
    fine = fine + random.uniform(-0.5, 0.5, count, 3, 24, 24) * random.uniform(0, 0.2, count, 1, 1, 1)
    field = F.interpolate(coarse, size=size, mode="bicubic") + F.interpolate(fine, size=size, mode="bilinear")
    return field.clamp(0, 1)


def _grid(random: Random, size: int) -> tuple[Tensor, Tensor]:
    """x and y of the pixel centres in [-1,1], shaped (1,1,1,size) and (1,1,size,1)."""
    line = torch.linspace(-1, 1, size, device=random.device)
    return line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)


def _hair(random: Random, image: Tensor, probability: float) -> Tensor:
    """Streaky hair around the face: inside a large ellipse, outside the face's own, so that some hangs into it."""
    count, size = len(image), image.shape[-1]
    x, y = _grid(random, size)
    cx = random.uniform(-0.12, 0.12, count, 1, 1, 1)
    top = random.uniform(-0.8, -0.42, count, 1, 1, 1)  # hairline; the eyes are near -0.26
    bottom = random.uniform(0.75, 1.3, count, 1, 1, 1)
    width = random.uniform(0.42, 0.75, count, 1, 1, 1)
    wave = F.interpolate(0.08 * random.normal(count, 1, 8, 8), size=size, mode="bicubic")
    centre, height = (top + bottom) / 2, (bottom - top) / 2
    face = ((x - cx) / width) ** 2 + ((y - centre) / height) ** 2 + wave
    thick = random.uniform(1.3, 1.9, count, 1, 1, 1)
    length = random.uniform(-0.4, 1.4, count, 1, 1, 1)
    head = ((x - cx) / (width * thick)) ** 2 + ((y - centre + 0.25) / (height * thick)) ** 2 + wave
    mask = ((face - 1) * 8).clamp(0, 1) * ((1 - head) * 8).clamp(0, 1) * ((length - y) * 6).clamp(0, 1)
    dark = random.uniform(0.03, 0.25, count, 1, 1, 1)
    tone = torch.cat([torch.ones_like(dark), random.uniform(0.65, 1.0, count, 1, 1, 1)], 1)
    light = random.chance(0.3, count, 1, 1, 1) * random.uniform(0.1, 0.45, count, 1, 1, 1)
    colour = (dark + light) * torch.cat([tone, tone[:, 1:] * random.uniform(0.55, 1.0, count, 1, 1, 1)], 1)
    streaks = F.interpolate(random.uniform(0.5, 1.5, count, 1, 6, 48), size=size, mode="bilinear")
    mask = mask * random.chance(probability, count, 1, 1, 1)
    return image + mask * (colour * streaks - image)


def _occlude(random: Random, image: Tensor, probability: float) -> Tensor:
    """A hand-sized ellipse of any colour, near the border more often than on the nose."""
    count, size = len(image), image.shape[-1]
    x, y = _grid(random, size)
    angle = random.uniform(0, 2 * math.pi, count, 1, 1, 1)
    reach = random.uniform(0.45, 1.0, count, 1, 1, 1)
    dx, dy = x - reach * angle.cos(), y - reach * angle.sin()
    turn = random.uniform(0, math.pi, count, 1, 1, 1)
    u, v = dx * turn.cos() + dy * turn.sin(), dy * turn.cos() - dx * turn.sin()
    inside = (u / random.uniform(0.1, 0.45, count, 1, 1, 1)) ** 2 + (v / random.uniform(0.1, 0.3, count, 1, 1, 1)) ** 2
    mask = ((1 - inside) * 6).clamp(0, 1) * random.chance(probability, count, 1, 1, 1)
    texture = F.interpolate(random.uniform(-0.1, 0.1, count, 1, 6, 6), size=size, mode="bilinear")
    return image + mask * (random.uniform(0, 0.9, count, 3, 1, 1) + texture - image)


def _photograph(random: Random, image: Tensor, amount: float) -> Tensor:
    """Exposure, white balance, tone curve, blur, low resolution, noise, and JPEG-like compression."""
    count, size = len(image), image.shape[-1]
    image = image * (1 + amount * 0.04 * random.normal(count, 3, 1, 1)) * (1 + amount * 0.10 * random.normal(count, 1, 1, 1))
    image = image.clamp(0, 1) ** torch.exp(amount * 0.15 * random.normal(count, 1, 1, 1))
    image = image + amount * 0.02 * random.normal(count, 1, 1, 1)

    blurred = F.avg_pool2d(F.avg_pool2d(image, 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False)
    image = image + amount * random.uniform(0, 1, count, 1, 1, 1) * (blurred - image)
    small = F.interpolate(F.avg_pool2d(image, 2), size=size, mode="bilinear")
    image = image + random.chance(0.15 * amount, count, 1, 1, 1) * (small - image)
    image = image + amount * 0.03 * random.uniform(0, 1, count, 1, 1, 1) * random.normal(*image.shape)
    return _compress(random, image.clamp(0, 1), amount)


def _compress(random: Random, image: Tensor, amount: float) -> Tensor:
    """Quantise 8x8 blocks in the cosine domain, coarser at higher frequencies, as JPEG does."""
    count, _, size, _ = image.shape
    k = torch.arange(8, device=image.device, dtype=image.dtype)
    dct = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / 8)
    dct[0] /= math.sqrt(2)
    step = random.uniform(0.0, 0.03 * amount, count, 1, 1, 1, 1, 1) + 1e-3
    step = step * (1 + 0.5 * (k[:, None] + k[None])).view(1, 1, 1, 8, 1, 8)
    blocks = image.reshape(count, 3, size // 8, 8, size // 8, 8)
    spectrum = torch.einsum("ua,nchawb,vb->nchuwv", dct, blocks, dct)
    spectrum = (spectrum / step).round() * step
    return torch.einsum("ua,nchuwv,vb->nchawb", dct, spectrum, dct).reshape(image.shape)
