"""Packs a network with batch norm's statistics at several image sizes (decision 9).

    python -m tools.release.pack_teacher IN OUT.npz --sizes 112 160 224

IN is a bundle's folder or a packed network. The faces are rendered as reports/config.yaml says, but for their size.
"""

import argparse
import tempfile
from collections.abc import Collection
from pathlib import Path

import torch

from leanface import paths
from leanface.bundle import load_network
from leanface.config import load_face_config
from leanface.errors import ArtifactError
from leanface.networks.packed import Statistics, load_packed, save_packed, statistics_of
from leanface.networks.resnet import FaceReconstructionNet, scaled_widths
from leanface.networks.widths import widths_of
from leanface.synthesis.datamodule import STATISTICS_BATCHES, Stream
from leanface.training.batch_norm import measure_batch_norm


def pack_at_sizes(
    source: Path, target: Path, sizes: Collection[int], stream: Stream, seed: int, batch_size: int
) -> None:
    """Write the network of `source` with statistics for each size.

    At the size that a bundle was trained for they are its own, of more faces; at the others they are measured, with the
    rounded weights.

    Raises:
        ArtifactError: `source` is missing, damaged, or not of full width.
    """
    if source.is_dir():
        network, spec = load_network(source)
        own_size = spec.input.size
    else:
        network, own_size = load_packed(source), 0  # a packed file does not say which size was trained for
    assert isinstance(network, FaceReconstructionNet)
    if widths_of(network) != scaled_widths(1.0):
        raise ArtifactError(f"{source} is not of full width; only such a network can be packed.")
    statistics: dict[int, Statistics] = {own_size: statistics_of(network)} if own_size in sizes else {}
    with tempfile.TemporaryDirectory() as folder:
        rounded = Path(folder) / target.name
        save_packed(network, rounded)
        network = load_packed(rounded)
    network.to(stream.device)
    for size in set(sizes) - set(statistics):
        images = stream.statistics_images(size, seed, batch_size)
        measure_batch_norm(network, (batch.float() / 255.0 for batch in images))
        statistics[size] = statistics_of(network)
    save_packed(network, target, statistics)


def main() -> None:
    """Parse the arguments; measure on the GPU if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tools.release.pack_teacher", description=__doc__)
    parser.add_argument("source", type=Path, metavar="IN", help="a bundle's folder or a packed .npz")
    parser.add_argument("target", type=Path, metavar="OUT.npz")
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 160, 224], metavar="PX")
    parser.add_argument("--config", type=Path, default=paths.CONFIG, help="how faces are rendered")
    parser.add_argument("--batch-size", type=int, default=128, help=f"faces in each of {STATISTICS_BATCHES} batches")
    arguments = parser.parse_args()
    config = load_face_config(arguments.config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stream = Stream(config.data, tuple(arguments.sizes), device)
    pack_at_sizes(
        arguments.source, arguments.target, arguments.sizes, stream, config.seed, batch_size=arguments.batch_size
    )


if __name__ == "__main__":
    main()
