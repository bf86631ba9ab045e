"""What a network reads in each image, as a picture."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.data.contact_sheet import contact_sheet
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer

PAIRS_PER_ROW = 2


@torch.no_grad()
def reconstruction_sheet(
    model: MorphableModel, images: Float[Tensor, "batch 3 size size"], network: nn.Module, path: Path
) -> None:
    """Tile image, reconstruction and reconstruction over the image, two faces to a row, into one PNG."""
    rendering = Renderer(model, images.shape[-1], supersample=2)(network(images))
    over = rendering.image + images * (1 - rendering.alpha)
    tiles = torch.stack([images, rendering.image, over], 1).flatten(0, 1)
    pixels = (tiles.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    contact_sheet(pixels, 3 * PAIRS_PER_ROW, path)
