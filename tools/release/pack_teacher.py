"""Packs a trained original as it ships: in int8, less its heads.

python -m tools.release.pack_teacher BUNDLE OUT.npz
"""

import argparse
from pathlib import Path

from leanface.bundle import load_network
from leanface.errors import ArtifactError
from leanface.networks.packed import save_packed
from leanface.networks.resnet import FaceReconstructionNet, scaled_widths
from leanface.networks.widths import widths_of


def pack_teacher(source: Path, target: Path) -> None:
    """Write the network of a bundle's folder as a packed file.

    Raises:
        ArtifactError: `source` is missing, damaged, or not such a network of full width.
    """
    network, _ = load_network(source)
    if not isinstance(network, FaceReconstructionNet) or widths_of(network) != scaled_widths(1.0):
        raise ArtifactError(f"{source} is not a face network of full width; only such a network can be packed.")
    save_packed(network, target)


def main() -> None:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(prog="python -m tools.release.pack_teacher", description=__doc__)
    parser.add_argument("source", type=Path, metavar="BUNDLE", help="a bundle's folder")
    parser.add_argument("target", type=Path, metavar="OUT.npz")
    arguments = parser.parse_args()
    pack_teacher(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
