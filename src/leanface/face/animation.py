"""A head that moves, as one GLB: its shape at rest, what each expression coefficient moves, and tracks over time.

Each frame's coefficients are the weights of morph targets, and its pose turns and moves the head's node. Times are the
video's own, evenly spaced or not. Units and axes are those of `leanface.face.mesh`.

Source: glTF 2.0 (Khronos), 3.7.2.2 (morph targets) and 3.11 (animations).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from leanface.face.glb import Glb
from leanface.face.mesh import Mesh, encoded_texture, surface_primitive

LEAST_MOVE_M = 2e-5
"""What one standard deviation of a component moves less than this stays where it is. Most vertices do so in most
components, and take no room: the file is half as large, and the head 0.05 mm off at most on average."""


class Motion(NamedTuple):
    """One head over time.

    Attributes:
        seconds: of each frame, growing, from 0 on.
        expression: coefficients.
        angles_rad: pitch about x, yaw about y and roll about z: the rotation is roll @ yaw @ pitch.
        translation_m: of the model's origin.
    """

    seconds: Float32[np.ndarray, " frames"]
    expression: Float32[np.ndarray, "frames components"]
    angles_rad: Float32[np.ndarray, "frames 3"]
    translation_m: Float32[np.ndarray, "frames 3"]


def encode_animation(
    name: str, mesh: Mesh, moves: Float32[np.ndarray, "components corners 3"], motion: Motion
) -> bytes:
    """Return a GLB whose animation plays a head's expression and pose.

    The head's node has the pose of each frame. Its parent moves the mean place to the origin, where viewers look.

    Args:
        name: of the nodes, the mesh and the animation.
        mesh: with the person's identity, and no expression.
        moves: what each expression coefficient of 1 moves (m), at the mesh's own vertices.
        motion: of at least one frame.
    """
    glb = Glb()
    primitive = surface_primitive(glb, mesh)
    primitive["targets"] = [
        {"POSITION": glb.sparse(np.where(np.linalg.norm(move, axis=1, keepdims=True) < LEAST_MOVE_M, 0, move))}
        for move in moves
    ]
    times = glb.accessor(np.ascontiguousarray(motion.seconds, np.float32), bounds=True)
    tracks = {
        "weights": motion.expression.ravel(),
        "rotation": quaternions(motion.angles_rad),
        "translation": motion.translation_m,
    }
    outputs = [glb.accessor(np.ascontiguousarray(values, np.float32)) for values in tracks.values()]
    place = motion.translation_m.mean(0).tolist()
    head = 1
    scene = {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"name": f"{name}_camera", "translation": [-each for each in place], "children": [head]},
            {"name": name, "mesh": 0, "translation": place},
        ],
        "meshes": [
            {
                "name": name,
                "primitives": [primitive],
                "weights": [0] * len(moves),
                "extras": {"targetNames": [f"expression_{index}" for index in range(len(moves))]},
            }
        ],
        "animations": [
            {
                "name": name,
                "samplers": [{"input": times, "output": output, "interpolation": "LINEAR"} for output in outputs],
                "channels": [
                    {"sampler": index, "target": {"node": head, "path": path}} for index, path in enumerate(tracks)
                ],
            }
        ],
        **glb.material(name, encoded_texture(mesh), f"image/{mesh.texture_format}"),
    }
    return glb.encode(scene)


def quaternions(angles_rad: Float[np.ndarray, "frames 3"]) -> Float32[np.ndarray, "frames 4"]:
    """Return unit quaternions (x, y, z, w) of roll @ yaw @ pitch, each on the same side as the one before it."""
    cx, cy, cz = np.cos(np.asarray(angles_rad, np.float64) / 2).T
    sx, sy, sz = np.sin(np.asarray(angles_rad, np.float64) / 2).T
    turns = np.stack(
        [
            cz * cy * sx - sz * sy * cx,
            cz * sy * cx + sz * cy * sx,
            sz * cy * cx - cz * sy * sx,
            cz * cy * cx + sz * sy * sx,
        ],
        axis=1,
    )
    # q and -q are the same turn, but players take the way from one to the next.
    sides = np.sign((turns[1:] * turns[:-1]).sum(1))
    turns[1:] *= np.cumprod(np.where(sides == 0, 1, sides))[:, None]
    return turns.astype(np.float32)
