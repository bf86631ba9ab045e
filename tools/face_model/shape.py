"""Populations of head shapes: identities and expressions."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.face_model.sources import Units, decimeters_from_anny
from tools.face_model.topology import SKIN, UPPER_TEETH, Topology

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# How far local changes of a region are drawn, as the standard deviation of a slider that runs from -1 to 1.
# Regions that are absent (neck, limbs) stay put.
_LOCAL_SPREAD = {
    "head": 0.18, "forehead": 0.22, "eyebrows": 0.25, "eye": 0.22, "nose": 0.24, "cheek": 0.28,
    "mouth": 0.19, "chin": 0.25, "ear": 0.22,
}  # fmt: skip
# Moves of the whole head, which are pose, and sideways shifts, which no symmetric face has.
_EXCLUDED_LOCAL = frozenset({
    "head-trans-out", "head-trans-up", "head-trans-forward", "head-angle-out", "mouth-trans-out",
    "nose-trans-out",
})  # fmt: skip
_LOCAL_LIMIT = 0.65

# Units that look wrong at full strength, or that would dominate the basis (a turning eyeball moves many
# vertices; gaze is rarely off the camera in a portrait).
_UNIT_STRENGTH = {
    "eyeLook": 0.3, "jawLeft": 0.3, "jawRight": 0.3, "mouthLeft": 0.35, "mouthRight": 0.35, "jawForward": 0.5,
    "mouthFunnel": 0.5, "mouthPucker": 0.6, "mouthRoll": 0.6, "mouthShrug": 0.6, "noseSneer": 0.6,
    "cheekPuff": 0.6, "eyeBlink": 0.6, "mouthStretch": 0.6, "mouthClose": 0.2,
}  # fmt: skip
_MAKEHUMAN_STRENGTH = 0.45
# Expressions that people show as a whole: unit (both sides of it) to activation. Smiles come more than once,
# as in people's pictures.
_WHOLE_EXPRESSIONS: tuple[dict[str, float], ...] = (
    {"mouthSmile": 0.9, "cheekSquint": 0.6, "eyeSquint": 0.25},
    {"mouthSmile": 0.9, "cheekSquint": 0.5, "mouthUpperUp": 0.35, "mouthLowerDown": 0.25},
    {"mouthSmile": 1.0, "cheekSquint": 0.8, "mouthUpperUp": 0.55, "mouthLowerDown": 0.35, "jawOpen": 0.1,
     "eyeSquint": 0.35},
    {"jawOpen": 0.55, "browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.8},
    {"browDown": 0.9, "eyeSquint": 0.4, "mouthPress": 0.6, "noseSneer": 0.3},
    {"browInnerUp": 0.7, "mouthFrown": 0.8, "mouthShrugLower": 0.4},
    {"jawOpen": 0.35, "mouthLowerDown": 0.3},
    {"mouthPucker": 0.6, "jawOpen": 0.08},
    {"mouthFunnel": 0.4, "jawOpen": 0.25},
    {"eyeBlink": 0.9},
    {"noseSneer": 0.7, "browDown": 0.5, "mouthUpperUp": 0.5},
)  # fmt: skip
# The face at rest, on which the model is centered. The sampled expressions' own mean wouldn't do: it frowns
# and half shuts its eyes. The jaw is a little open, or half of all draws would push the lips through each
# other.
_AT_REST = {"jawOpen": 0.08, "mouthSmile": 0.18, "browInnerUp": 0.22, "browOuterUp": 0.1, "eyeWide": 0.3}


class Frame(NamedTuple):
    """The pose that all heads are brought into.

    Attributes:
        reference: (coarse, 3) float32 decimeters, centered on the front of the face.
        front: (coarse,) true on the front of the face's skin, by which heads are aligned.
        scale: the mean factor by which alignment resized heads.
    """

    reference: Floats
    front: Mask
    scale: float


def sample_identities(model: Any, topology: Topology, count: int, rng: np.random.Generator) -> Floats:
    """Heads of random adults: (count, coarse, 3) float32 decimeters, unaligned.

    Sex, build, ancestry and age vary MakeHuman's phenotypes; local changes vary single features, mostly
    symmetrically.
    """
    rows = topology.base_vertex
    blendshapes = model.blendshapes[:, rows].reshape(len(model.blendshapes), -1)
    template = model.template_vertices[rows].reshape(1, -1)
    heads: list[Floats] = []
    for start in range(0, count, 500):
        size = min(500, count - start)
        coefficients = _blendshape_coefficients(model, size, rng)
        heads.append((template + coefficients @ blendshapes).numpy().reshape(size, -1, 3))
    return decimeters_from_anny(np.concatenate(heads))


def _blendshape_coefficients(model: Any, count: int, rng: np.random.Generator) -> Any:
    """(count, blendshapes) torch tensor of anny's coefficients for random adults."""
    import torch

    def tensor(values: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32))

    phenotype = {name: torch.full((count,), 0.5) for name in model.phenotype_labels}
    phenotype["gender"] = tensor(rng.beta(0.5, 0.5, count))
    # anny's age: 1/3 is a child, 2/3 a young adult, 1 an old one.
    phenotype["age"] = tensor(rng.uniform(0.52, 0.97, count))
    phenotype["muscle"] = tensor(rng.uniform(0.25, 0.75, count))
    phenotype["weight"] = tensor(rng.uniform(0.15, 0.85, count))
    ancestry = rng.dirichlet([0.6, 0.6, 0.6], count)
    for column, name in enumerate(("african", "asian", "caucasian")):
        phenotype[name] = tensor(ancestry[:, column])

    local: dict[str, torch.Tensor] = {}
    for label in model.local_change_labels:
        sided = label[:2] in {"l-", "r-"}
        feature = label[2:] if sided else label
        spread = _LOCAL_SPREAD.get(feature.split("-")[0])
        if spread is None or feature in _EXCLUDED_LOCAL:
            continue
        drawn = rng.normal(0, spread, count)
        if sided and "l-" + feature in local:
            drawn = 0.92 * local["l-" + feature].numpy() + 0.08 * drawn
        local[label] = tensor(np.clip(drawn, -_LOCAL_LIMIT, _LOCAL_LIMIT))
    rest_pose = torch.eye(4)[None, None].repeat(count, model.bone_count, 1, 1)
    inputs = model.get_tensor_inputs(rest_pose, phenotype, local, None)
    return model._get_phenotype_blendshape_coefficients(*inputs[1:4])


def reference_frame(heads: Floats, topology: Topology) -> tuple[Frame, Floats]:
    """Aligns a population to its own mean (generalized Procrustes, three rounds).

    Args:
        heads: (members, coarse, 3).
        topology: tells skin from eyes.

    Returns:
        The frame, and the aligned heads (members, coarse, 3).
    """
    depth = heads.mean(axis=0)[:, 2]
    front = (topology.part == SKIN) & (depth > np.quantile(depth[topology.part == SKIN], 0.45))
    reference = heads.mean(axis=0)
    reference = reference - reference[front].mean(axis=0)
    aligned, scale = heads, 1.0
    for _ in range(3):
        aligned, scales = align(heads, reference, front)
        reference, scale = aligned.mean(axis=0), float(scales.mean())
    return Frame(reference, front, scale), aligned


def align(heads: Floats, reference: Floats, front: Mask) -> tuple[Floats, Floats]:
    """Moves, turns and resizes heads onto a reference, by least squares over the vertices in ``front``.

    Size is removed because one picture can't tell it from distance.

    Args:
        heads: (members, vertices, 3).
        reference: (vertices, 3), its ``front`` centered on the origin.
        front: (vertices,).

    Returns:
        Aligned heads and the scale of each (members,).

    Source: P. Schoenemann, "A generalized solution of the orthogonal Procrustes problem", 1966.
    """
    centered = heads - heads[:, front].mean(axis=1, keepdims=True)
    covariance = np.einsum("nvi,vj->nij", centered[:, front], reference[front])
    u, singular, vt = np.linalg.svd(covariance)
    scales = singular.sum(axis=1) / (centered[:, front] ** 2).sum(axis=(1, 2))
    turned = np.einsum("nvi,nij->nvj", centered, u @ vt)
    return (turned * scales[:, None, None]).astype(np.float32), scales.astype(np.float32)


def vertex_weights(frame: Frame, topology: Topology) -> Floats:
    """(coarse * 3,) how much each coordinate's error matters: the face most; ears, scalp and teeth less."""
    weights = np.where(frame.front | (topology.part != SKIN), 1.0, 0.35).astype(np.float32)
    across = np.abs(frame.reference[:, 0])
    weights[(across > 0.9 * across.max()) & ~frame.front] = 0.25
    weights[(topology.part != SKIN)] = 0.5
    weights[topology.part >= UPPER_TEETH] = 0.35
    return weights.repeat(3)


def sample_expressions(
    units: list[Units], frame: Frame, topology: Topology, count: int, rng: np.random.Generator
) -> Floats:
    """Displacements of random expressions: (count, coarse * 3) float32 decimeters.

    Each is a whole expression (a smile, surprise, ...) plus a few single units, mostly symmetric. Their mean
    isn't the neutral face: that is ``expression_at_rest``.
    """
    names = [name for unit in units for name in unit.names]
    offsets = np.concatenate([unit.offsets[:, topology.base_vertex] for unit in units])
    strength = np.array([_strength(name) for name in names])
    left = {_side_free(name, "left"): row for row, name in enumerate(names) if _side_free(name, "left") != name}

    single = rng.random((count, len(names))) ** 1.5 * (rng.random((count, len(names))) < 0.09)
    whole = np.zeros_like(single)
    choice = rng.integers(len(_WHOLE_EXPRESSIONS), size=count)
    intensity = rng.uniform(0.2, 1, count) * (rng.random(count) < 0.8)
    for column, name in enumerate(names):
        both_sides = name.removesuffix("Left").removesuffix("Right")
        amount = np.array([expression.get(both_sides, 0.0) for expression in _WHOLE_EXPRESSIONS])
        whole[:, column] = amount[choice] * intensity
    symmetric = rng.random(count) < 0.88
    for row, name in enumerate(names):
        twin = left.get(_side_free(name, "right"))
        if twin is None or _side_free(name, "right") == name:
            continue
        single[:, row] = np.where(symmetric, single[:, twin] * rng.uniform(0.85, 1.0, count), single[:, row])
    activation = _conjugate_gaze(names, single, rng) * strength + whole
    flat = offsets.reshape(len(names), -1) * np.float32(frame.scale)
    return np.asarray(np.clip(activation, 0, 1).astype(np.float32) @ flat, dtype=np.float32)


def expression_at_rest(units: Units, frame: Frame, topology: Topology) -> Floats:
    """(coarse, 3) float32 decimeters: the displacement of the relaxed face from anny's neutral one.

    Args:
        units: ARKit's.
        frame: gives the scale of aligned heads.
        topology: the mesh.
    """
    amount = np.array([at_rest(name) for name in units.names])
    offsets = units.offsets[:, topology.base_vertex] * np.float32(frame.scale)
    return np.einsum("u,uvi->vi", amount, offsets).astype(np.float32)


def at_rest(name: str) -> float:
    """How far a unit is activated in the face at rest."""
    return _AT_REST.get(name.removesuffix("Left").removesuffix("Right"), 0.0)


def _strength(name: str) -> float:
    """The limit of a unit's activation."""
    if "-" in name:
        return _MAKEHUMAN_STRENGTH
    return next((value for prefix, value in _UNIT_STRENGTH.items() if name.startswith(prefix)), 1.0)


def _side_free(name: str, side: str) -> str:
    """The name with its side taken out: browDownLeft to browDown, eye-left-slit to eye-slit."""
    return name.removesuffix(side.capitalize()).replace(f"-{side}-", "-")


def _conjugate_gaze(names: list[str], activation: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Replaces eye movements: both eyes look the same way, and in half of the samples at the camera."""
    activation = activation.copy()
    column = {name: i for i, name in enumerate(names)}
    away = rng.random(len(activation)) < 0.5
    across = np.clip(rng.normal(0, 0.5, len(activation)), -1, 1) * away
    up = np.clip(rng.normal(-0.1, 0.4, len(activation)), -1, 1) * away
    for name, value in (
        ("eyeLookOutLeft", across), ("eyeLookInRight", across),
        ("eyeLookInLeft", -across), ("eyeLookOutRight", -across),
        ("eyeLookUpLeft", up), ("eyeLookUpRight", up), ("eyeLookDownLeft", -up), ("eyeLookDownRight", -up),
    ):  # fmt: skip
        activation[:, column[name]] = np.maximum(value, 0)
    return activation
