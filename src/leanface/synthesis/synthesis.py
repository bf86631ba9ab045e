"""Random faces with exact coefficients, and pictures of them that pass for photographs.

Everything is batched PyTorch, driven by one generator, and runs where the morphable model lies (CPU or CUDA).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from leanface.face.camera import DISTANCE_DM, FOCAL_PX, REFERENCE_SIZE_PX, camera_from_model, image_from_camera
from leanface.face.coefficients import Coefficients, split
from leanface.face.geometry import BANDS, CONSTANT
from leanface.face.landmarks import landmark_vertices
from leanface.face.lighting import sh_basis
from leanface.face.morphable_model import MorphableModel, per_model
from leanface.face.render import Renderer, Rendering
from leanface.synthesis.accessories import accessorise, wardrobe_of
from leanface.synthesis.appearance import dress, shine
from leanface.synthesis.draws import Random, constant, seed_of
from leanface.synthesis.photography import background, photograph
from leanface.synthesis.surface import surface_of

__all__ = ["population", "render_faces", "sample_coefficients", "seed_of"]

YAW_MAX_RAD = 1.05
CLIP_SIGMA = 2.0
_EXPOSURE_SPREAD = 0.22
"""Standard deviation of the log brightness of light on the face."""


def sample_coefficients(
    model: MorphableModel,
    count: int,
    generator: Generator,
    *,
    yaw_max_rad: float = YAW_MAX_RAD,
    clip: float = CLIP_SIGMA,
    images_per_identity: int = 1,
) -> Float[Tensor, "count 257"]:
    """Draw random faces, framed as photos are by `leanface.photos.alignment`, give or take a detector's errors.

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
    translation = translation + torch.cat([0.045 * random.normal(count, 2), 0.3 * random.normal(count, 1)], -1)
    lighting = _sample_lighting(random, count)
    return torch.cat(Coefficients(identity, expression, albedo, angles_rad, lighting, translation), dim=-1)


def _framing(model: MorphableModel, identity: Tensor, expression: Tensor, angles_rad: Tensor) -> Tensor:
    """Return the translation (B,3) at which the five landmarks lie, by least squares, on the mean frontal face's.

    Scale and shift in the image, the alignment's two freedoms, become depth and sideways motion.
    """
    size = REFERENCE_SIZE_PX
    vertices, zero = landmark_vertices(model, identity, expression), torch.zeros_like(angles_rad)
    seen = image_from_camera(camera_from_model(vertices, angles_rad, zero), size)[..., :2]
    template = image_from_camera(model.mean_vertices[model.landmarks][None], size)[..., :2]
    seen_center, template_center = seen.mean(1, keepdim=True), template.mean(1, keepdim=True)
    spread = seen - seen_center
    scale = ((spread * (template - template_center)).sum((1, 2)) / spread.square().sum((1, 2))).clamp(0.75, 1.35)
    depth = DISTANCE_DM / scale
    center = (size - 1) / 2
    shift_px = (template_center[:, 0] - center) - scale[:, None] * (seen_center[:, 0] - center)
    shift = shift_px * depth[:, None] / FOCAL_PX
    return torch.stack([shift[:, 0], -shift[:, 1], DISTANCE_DM - depth], -1)


def _sample_lighting(random: Random, count: int) -> Float[Tensor, "count 27"]:
    """Draw ambient light and two lamps, mostly in front of the face, each with a color; exposed for a face."""
    gamma = torch.zeros(count, BANDS, 3, device=random.device)
    gamma[:, 0] = random.uniform(0.25, 0.8, count, 1) * _light_color(random, count)
    for strength, spread in ((random.uniform(0.05, 1.2, count), 0.8), (random.uniform(-0.4, 0.5, count), 1.5)):
        direction = random.normal(count, 3) * spread
        direction[:, 1] += 0.3
        direction[:, 2] = direction[:, 2].abs() + 0.6
        lamp = sh_basis(F.normalize(direction, dim=-1)) * strength.clamp_min(0)[:, None] * 0.155 / CONSTANT
        gamma = gamma + lamp[:, :, None] * _light_color(random, count)[:, None]
    gamma = gamma + 0.008 * random.normal(count, BANDS, 1) + 0.003 * random.normal(count, BANDS, 3)
    # A photographer exposes for the face: what falls on a surface that faces the camera varies little.
    front = sh_basis(constant(((0.0, 0.0, 1.0),), random.device)) @ gamma
    exposure = torch.exp(_EXPOSURE_SPREAD * random.normal(count, 1, 1)) / front.mean(-1, keepdim=True).clamp_min(0.2)
    return (gamma * exposure).flatten(1)


def _light_color(random: Random, count: int) -> Float[Tensor, "count 3"]:
    """Draw light from candle to blue sky, with little green or magenta."""
    warmth, green = 0.06 * random.normal(count, 1), 0.015 * random.normal(count, 1)
    return torch.exp(torch.cat([warmth, green, -warmth], 1))


@per_model
def population(model: MorphableModel) -> tuple[Float[Tensor, "257"], Float[Tensor, "257"]]:
    """Compute mean and standard deviation of 20,000 sampled faces' coefficients (fixed seed)."""
    generator = Generator(model.mean_vertices.device).manual_seed(1)
    sample = sample_coefficients(model, 20_000, generator)
    return sample.mean(0), sample.std(0)


def render_faces(
    renderer: Renderer, coefficients: Float[Tensor, "batch 257"], generator: Generator, augment: float
) -> Float[Tensor, "batch 3 size size"]:
    """Render faces over random backgrounds, as a camera would deliver them: float32 in [0,1].

    Args:
        augment: 0 gives clean renders over backgrounds, 1 the full range of what people wear and what can go wrong.
    """
    random = Random(generator)
    head = _photogenic(random, renderer, coefficients, augment) if augment > 0 else renderer(coefficients)
    behind = background(random, len(coefficients), renderer.size)
    image = torch.addcmul(head.image, behind, 1 - head.alpha)
    return (photograph(random, image, augment) if augment > 0 else image).clamp(0.0, 1.0)


@torch.no_grad()
def _photogenic(random: Random, renderer: Renderer, coefficients: Tensor, amount: float) -> Rendering:
    """Return the heads that the coefficients describe, dressed, with glasses and clothes, under real light."""
    parts = split(coefficients.float())
    model, surface = renderer.model, surface_of(renderer.model)
    bare = model.vertices(parts.identity, parts.expression)
    dressed = dress(random, surface, bare, model.albedo(parts.albedo), amount)
    worn = accessorise(random, model, bare, dressed.albedo, parts, amount)
    head = camera_from_model(dressed.vertices, parts.angles_rad, parts.translation)
    vertices, triangles = torch.cat([head, worn.vertices], 1), wardrobe_of(model).triangles
    normals = renderer.normals(vertices, triangles)
    answer = shine(random, surface, normals[:, : model.vertex_count], parts, amount)
    albedo = torch.cat([dressed.albedo * answer.shadow[..., None], worn.albedo], 1)
    colors = albedo * renderer.irradiance(normals, parts.lighting)
    colors[:, : model.vertex_count] += answer.highlight
    return renderer.draw(vertices, colors, triangles)
