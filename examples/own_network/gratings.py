"""Compress a network of your own: a depthwise-separable classifier of gratings by direction, on data made here."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanface import bundle
from leanface.export.onnx import export_network, save_model
from leanface.networks.quantized import Quantizer
from leanface.networks.widths import with_widths
from leanface.pruning.compensate import compensate
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Magnitude
from leanface.pruning.prune import prune_channels
from leanface.quantization.fake_quantize import fake_quantize

SIZE, CLASSES, OUT = 32, 8, Path("build/own_network")


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
    pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(inputs), nn.ReLU(), pointwise, nn.BatchNorm2d(outputs), nn.ReLU())


class Gratings:  # what a bundle needs to rebuild the network; implements leanface.task.TaskNetwork
    outputs, any_size = {"scores": (0, CLASSES)}, False

    def build(self, widths=None) -> nn.Module:
        stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))
        network = nn.Sequential(stem, block(24, 48, 2), block(48, 64, 1), head)
        return network if widths is None else with_widths(network, widths, SIZE)


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    angle, (phase, noise) = labels * torch.pi / CLASSES, torch.rand(2, count, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    wave = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None] + 6.28 * phase
    image = (
        0.5 + 0.2 * wave.sin()[:, None] + noise[:, None] * torch.randn(count, 3, SIZE, SIZE, generator=generator) / 4
    )
    return image.clamp(0, 1), labels


def accuracy(network: nn.Module) -> float:
    images, labels = samples(1000, seed=1)
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


def main() -> dict[str, float]:
    torch.manual_seed(0)
    teacher, (images, labels) = Gratings().build(), samples(2000, seed=0)
    optimizer = torch.optim.AdamW(teacher.parameters(), 5e-3)
    for step in range(150):
        pick = torch.arange(64) + step * 64 % 1920
        loss = F.cross_entropy(teacher(images[pick]), labels[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    teacher.eval()
    ratios = dict.fromkeys(ChannelGraph(teacher, SIZE).groups(), 0.5)
    pruned, kept = prune_channels(teacher, ratios, Magnitude(), round_to=4, image_size=SIZE)
    refitted, _ = compensate(pruned, teacher, kept, images[:512], ridge=0.1)
    found = {name: accuracy(each) for name, each in (("teacher", teacher), ("pruned", pruned), ("re-fitted", refitted))}
    quantizer = Quantizer(residual=True).model_dump()
    spec = bundle.new_spec(refitted, SIZE, f"{__file__}:Gratings", kept_channels=kept, quantizer=quantizer)
    quantized = fake_quantize(refitted, images[:256], Quantizer(residual=True))
    bundle.save_bundle(quantized, spec, OUT / "int8")
    save_model(export_network(quantized, spec, "int8", opset=19, dynamic_size=False), OUT / "int8.onnx", {})
    return found | {"int8": accuracy(bundle.load_bundle(OUT / "int8")[0])}


if __name__ == "__main__":
    print(*(f"{name}: {value:.1%}" for name, value in main().items()), sep="\n")
