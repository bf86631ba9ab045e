"""Read a 3D face out of a photo with nothing but numpy and OpenVINO or ONNX Runtime.

    python reconstruct.py photo.ppm --landmarks 120,95 164,94 141,123 124,147 160,146 --out face.obj
    python reconstruct.py crop.npy --out face.obj     # a crop that was aligned before
    python reconstruct.py --check                     # does this machine compute what it should?

Photos are binary PPM files (`convert photo.jpg photo.ppm`, `ffmpeg -i photo.jpg photo.ppm`) or .npy files of uint8
(height, width, 3). The landmarks are the image-left and image-right eye, the tip of the nose, and the image-left and
image-right corner of the mouth, in pixels, from any face detector.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from leanface_network import HERE, RUNTIMES, Network, as_npy, check, model_for_this_machine, read_image, write

FOCAL_PX, REFERENCE_PX, DISTANCE_DM = 1015.0, 224, 10.0


class Face(NamedTuple):
    """A face in the camera's frame: x to the right, y up, z towards the camera, which is at z = 10 (decimeters)."""

    vertices: np.ndarray  # (V,3) shape alone, without pose
    posed: np.ndarray  # (V,3) rotated and moved as in the photo
    colors: np.ndarray  # (V,3) skin under white light, in [0,1]
    pixels: np.ndarray  # (V,2) where the crop shows them


class MorphableModel:
    """The face as a linear function of its coefficients."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.mean_vertices = arrays["mean_vertices"]
            self.mean_albedo = arrays["mean_albedo"]
            self.shape_basis = arrays["shape_basis"].astype(np.float32)  # (144, V*3): identity, then expression
            self.albedo_basis = arrays["albedo_basis"].astype(np.float32)  # (80, V*3)
            self.triangles = arrays["triangles"]
            self.template = arrays["template"]  # (5,2) landmarks in a crop of 224 px

    def decode(self, coefficients: np.ndarray, size: int) -> Face:
        """Return the face of one reading (257,) of a crop of `size` pixels."""
        vertices = self.mean_vertices + (coefficients[:144] @ self.shape_basis).reshape(-1, 3)
        colors = self.mean_albedo + (coefficients[144:224] @ self.albedo_basis).reshape(-1, 3)
        posed = vertices @ _rotation(coefficients[224:227]).T + coefficients[254:257]
        pixels = posed[:, :2] / (DISTANCE_DM - posed[:, 2:]) * (FOCAL_PX * size / REFERENCE_PX)
        return Face(vertices, posed, colors.clip(0, 1), pixels * (1, -1) + (size - 1) / 2)


def _rotation(angles_rad: np.ndarray) -> np.ndarray:
    """Return roll @ yaw @ pitch."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    pitch = np.array([(1, 0, 0), (0, cx, -sx), (0, sx, cx)])
    yaw = np.array([(cy, 0, sy), (0, 1, 0), (-sy, 0, cy)])
    roll = np.array([(cz, -sz, 0), (sz, cz, 0), (0, 0, 1)])
    return roll @ yaw @ pitch


def align(photo: np.ndarray, landmarks: np.ndarray, template: np.ndarray, size: int) -> np.ndarray:
    """Crop (size,size,3) so that the landmarks lie, by least squares, on the template's; without rotation."""
    target = (template + 0.5) * (size / REFERENCE_PX) - 0.5
    source = landmarks - landmarks.mean(0)
    scale = float((source * (target - target.mean(0))).sum() / np.square(source).sum())
    shift = target.mean(0) - scale * landmarks.mean(0)
    columns = _resampling(photo.shape[1], size, scale, shift[0])
    rows = _resampling(photo.shape[0], size, scale, shift[1])
    # In 8 bits between the two passes, as in the crops that the network learned from.
    narrow = np.einsum("hwc,jw->hjc", photo.astype(np.float32), columns, optimize=True).round().clip(0, 255)
    return np.einsum("ih,hjc->ijc", rows, narrow, optimize=True).round().clip(0, 255).astype(np.uint8)


def _resampling(length: int, size: int, scale: float, shift: float) -> np.ndarray:
    """Weigh each of `length` pixels for each of `size`: bicubic, wider where it shrinks, edge pixels repeated."""
    center = (np.arange(size) - shift) / scale
    stretch = max(1.0, 1 / scale)
    reach = int(np.ceil(2 * stretch)) + 1
    near = np.floor(center).astype(int)[:, None] + np.arange(-reach, reach + 1)
    t = np.abs(near - center[:, None]) / stretch
    inner, outer = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    weights = np.where(t < 1, inner, np.where(t < 2, outer, 0.0))
    matrix = np.zeros((size, length), np.float32)
    np.add.at(matrix, (np.arange(size)[:, None], near.clip(0, length - 1)), weights / weights.sum(1, keepdims=True))
    return matrix


def as_obj(face: Face, triangles: np.ndarray) -> bytes:
    """Return the content of a mesh in meters, with a color for each vertex."""
    rows = np.hstack([face.vertices / 10, face.colors])
    vertices = "".join("v {:.6f} {:.6f} {:.6f} {:.4f} {:.4f} {:.4f}\n".format(*row) for row in rows)
    faces = "".join("f {} {} {}\n".format(*row) for row in triangles + 1)
    return ("# LeanFace; meters, x right, y up, z towards the camera\n" + vertices + faces).encode()


def point(text: str) -> tuple[float, float]:
    """Read "X,Y" in pixels."""
    x, y = (float(number) for number in text.split(","))
    if not np.isfinite((x, y)).all():
        raise ValueError
    return x, y


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image", type=Path, nargs="?", help="a photo, with --landmarks, or an aligned crop")
    parser.add_argument("--landmarks", nargs=5, type=point, metavar="X,Y", help="eyes, nose, corners of the mouth")
    parser.add_argument("--out", type=Path, default=Path("face.obj"))
    parser.add_argument("--runtime", choices=sorted(RUNTIMES))
    parser.add_argument("--check", action="store_true", help="compare with known coefficients, and measure")
    arguments = parser.parse_args()
    size = json.loads((HERE / "bundle.json").read_text())["image_size"]
    network = Network(model_for_this_machine(HERE), arguments.runtime)
    if arguments.check:
        return check(network)
    if arguments.image is None:
        parser.error("an image is needed, or --check")
    image, model = read_image(arguments.image), MorphableModel(HERE / "morphable_model.npz")
    if arguments.landmarks:
        landmarks = np.array(arguments.landmarks)
        if not np.ptp(landmarks, axis=0).all():
            raise SystemExit("Landmarks in one place or in a line are those of no face.")
        image = align(image, landmarks, model.template, size)
    if image.shape != (size, size, 3):
        raise SystemExit(
            f"A crop has {size} x {size} pixels, this image {image.shape[1]} x {image.shape[0]}: give its --landmarks."
        )
    coefficients = network(image[None])[0]
    # Not NAME.npy: that may be the photo.
    beside = arguments.out.parent / f"{arguments.out.stem}_coefficients.npy"
    write({beside: as_npy(coefficients), arguments.out: as_obj(model.decode(coefficients, size), model.triangles)})
    pitch, yaw, roll = np.degrees(coefficients[224:227])
    print(f"{arguments.out}: pitch {pitch:.1f}, yaw {yaw:.1f}, roll {roll:.1f} degrees, by {network.runtime}")


if __name__ == "__main__":
    sys.exit(main())
