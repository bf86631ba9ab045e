"""Faces and their five landmarks in a photo; the networks are packaged, so nothing is downloaded."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from leanface.errors import ConfigError, NoFaceError
from leanface.photos.alignment import roll_of
from leanface.photos.blazeface import BlazeFace, BlazeFaces
from leanface.photos.face_mesh import FaceMesh, Mesh, Region
from leanface.photos.mtcnn import PROPOSAL_PX, Mtcnn, covered
from leanface.photos.pixels import require_rgb

LOWER = "Smaller ones are looked for with a lower --min-face (in Python: min_face_px)."

FACE_LOGIT = 5.0
"""What the landmark network says of a face at least; faces in profile get less, and are MTCNN's to find."""

SURE_LOGIT = 12.0
"""Below that an upright face may be one that lies or stands on its head."""

HOPELESS_LOGIT = -10.0
"""After a first look, from which a second one does not help."""

LOOKS_MAX, SETTLED_RAD = 5, math.radians(3)
"""How often the landmark network looks at a face at most, and the change of its turn from which it need not again."""

STILL = 0.05
"""How far a face moves between two frames, in sides of its region, without being looked at twice."""

SURE_SCORE = 0.7
"""BlazeFace's score below which its box may be too far off for the landmark network."""

LONE_SCORE, LONE_AGREEMENT, LONE_ROLL_RAD = 0.9, 0.7, math.radians(25)
"""Where MTCNN alone sees a face: its least score, how far its landmarks may lie from the landmark network's (in mean
distances from their middle), and how much the face may tilt."""

MIN_FACE_PX = 40
"""Longer side of the smallest face that is looked for, unless the caller says otherwise or the photo is a portrait."""

PORTRAIT, BYSTANDER = 1 / 3, 1 / 3
"""A portrait shows one large face, of which both networks are sure, over so much of the photo's longer side; and faces
under such a share of its size are not looked for in it."""

EXPLAINED_PX = 1600
"""Longer side of a photo up to which faces that are too small are looked for, to say so."""


@dataclass(frozen=True, eq=False)
class FaceDetection:
    """One face, in pixels of the photo: x right, y down, pixel centers at integer coordinates.

    Attributes:
        box: left, top, right, bottom; may reach beyond the photo.
        landmarks: image-left eye, image-right eye, nose tip, image-left and image-right mouth corner.
        score: the network's confidence, in [0, 1].
        confirmed: two networks know it for a face. Not so for most profiles, and for some things that are no faces.
        mesh: what the landmark network saw, from which the face can be followed; None where MTCNN alone sees a face.
        number: of the person, from 1 on, in a video; None in a photo.
    """

    box: Float[np.ndarray, "4"]
    landmarks: Float[np.ndarray, "5 2"]
    score: float
    confirmed: bool = True
    mesh: Mesh | None = None
    number: int | None = None


class FaceDetector:
    """Finds faces above `min_face_px`: large ones however they are turned, small ones upright.

    BlazeFace looks for large faces, and turns the photo by quarters where it is not sure of an upright one; MTCNN looks
    for all others, which takes little time in portraits. The landmarks are those of a network that follows a face's
    turns and knows a face when it sees one, and MTCNN's where that one is not sure, as in profiles. Deterministic; any
    threads may share it.
    """

    def __init__(self, min_face_px: int | None = None) -> None:
        """Load the packaged networks.

        Args:
            min_face_px: longer side of the smallest face to look for; the time grows with its inverse square. By
                default MIN_FACE_PX, and in portraits a share of the face, see BYSTANDER.

        Raises:
            ConfigError: `min_face_px` is out of range.
            ArtifactError: a network's file is missing or damaged.
        """
        if min_face_px is not None and min_face_px < PROPOSAL_PX:
            raise ConfigError(f"--min-face (in Python: min_face_px) must be at least {PROPOSAL_PX}, got {min_face_px}.")
        self._min_face_px = MIN_FACE_PX if min_face_px is None else min_face_px
        self._bystander = BYSTANDER if min_face_px is None else 0.0
        self._blazeface = BlazeFace()
        self._mesh = FaceMesh()
        self._mtcnn = Mtcnn()

    def detect(self, image: UInt8[np.ndarray, "H W 3"], *, every: bool = True) -> list[FaceDetection]:
        """Find every face in an RGB photo, the largest first; [] where there is none.

        Args:
            every: whether others than the largest are asked for; without it there may be fewer.

        Raises:
            ValueError: the image is not uint8 (H, W, 3).
        """
        return self._detect(image, self._min_face_px, every=every)

    def require(self, image: UInt8[np.ndarray, "H W 3"], *, every: bool = True) -> list[FaceDetection]:
        """Find every face in an RGB photo that must show one, the largest first; see `detect`.

        Raises:
            NoFaceError: there is none, or only smaller ones than `min_face_px`.
            ValueError: the image is not uint8 (H, W, 3).
        """
        faces = self.detect(image, every=every)
        if faces:
            return faces
        photo = "a photo of {1}x{0} pixels".format(*image.shape)
        smaller: list[FaceDetection] = []
        if max(image.shape) <= EXPLAINED_PX:
            # What is smaller still takes long to look for, and is seldom a face.
            smaller = self._detect(image, max(self._min_face_px / 2, PROPOSAL_PX))
        if smaller:
            raise NoFaceError(
                f"the largest face in {photo} is about {_side(smaller[0].box):.0f} pixels tall, too small to be read; "
                f"expected at least {self._min_face_px}. Use a larger picture of it.",
                LOWER,
            )
        raise NoFaceError(
            f"no face found in {photo}. Use an upright photo in which both eyes and the mouth show and the face is at "
            f"least {self._min_face_px} pixels tall.",
            LOWER,
        )

    def largest(self, image: UInt8[np.ndarray, "H W 3"]) -> FaceDetection:
        """Find the largest face in an RGB photo; errors as for `require`."""
        return self.require(image, every=False)[0]

    def follow(self, image: UInt8[np.ndarray, "H W 3"], face: FaceDetection) -> FaceDetection | None:
        """Find a face of the frame before again; None if it is not where it was, or was never `confirmed`.

        Raises:
            ValueError: the image is not uint8 (H, W, 3).
        """
        require_rgb(image)
        if face.mesh is None:
            return None
        region = Region.of_points(face.mesh.points)
        mesh = self._mesh.locate(image, region)
        if mesh.logit >= FACE_LOGIT and Region.of_points(mesh.points).distance_from(region) > STILL:
            mesh = self._mesh.locate(image, Region.of_points(mesh.points))
        return _detection(mesh) if mesh.logit >= FACE_LOGIT and _side(mesh.box) >= self._min_face_px else None

    def _detect(
        self, image: UInt8[np.ndarray, "H W 3"], min_face_px: float, *, every: bool = True
    ) -> list[FaceDetection]:
        require_rgb(image)
        faces, sure = self._large(image)
        if sure and len(faces) == 1 and _side(faces[0].box) >= PORTRAIT * max(image.shape):
            looked_for = max(min_face_px, self._bystander * _side(faces[0].box)) if every else None
        else:
            looked_for = min_face_px
        if looked_for is not None:
            faces = faces + self._others(image, looked_for, faces)
        faces = [face for face in faces if _side(face.box) >= min_face_px]
        return sorted(faces, key=lambda face: (_area(face.box), face.score), reverse=True)

    def _large(self, image: UInt8[np.ndarray, "H W 3"]) -> tuple[list[FaceDetection], bool]:
        """Find the faces that fill a good part of a photo, and tell whether all that BlazeFace saw are, for sure."""
        (upright,) = self._blazeface.find(image)
        meshes = self._meshes(image, upright)
        sure = len(meshes) == len(upright.scores) > 0 and min(mesh.logit for mesh in meshes) >= SURE_LOGIT
        if not sure:
            for turned in self._blazeface.find(image, (1, 2, 3)):
                meshes += self._meshes(image, turned)
        meshes.sort(key=lambda mesh: mesh.logit, reverse=True)
        faces: list[Mesh] = []
        for mesh in meshes:
            # The same face seen upside down is less of a face.
            if not covered(mesh.box[None], _boxes([face.box for face in faces]))[0]:
                faces.append(mesh)
        return [_detection(face) for face in faces], sure

    def _meshes(self, image: UInt8[np.ndarray, "H W 3"], found: BlazeFaces) -> list[Mesh]:
        """Place landmarks on faces, and leave out what may be none: MTCNN is asked about that."""
        meshes: list[Mesh] = []
        for box, keypoints, score in zip(*found, strict=True):
            mesh = self._look(image, Region.of_box(box, keypoints[0], keypoints[1]))
            if mesh.logit >= (FACE_LOGIT if score >= SURE_SCORE else SURE_LOGIT):
                meshes.append(mesh)
        return meshes

    def _look(self, image: UInt8[np.ndarray, "H W 3"], region: Region) -> Mesh:
        """Place landmarks on what may be a face."""
        first = self._mesh.locate(image, region)
        if first.logit < HOPELESS_LOGIT:
            return first
        # A second look, at the face's own place and turn, makes the landmarks depend less on the first.
        region = Region.of_points(first.points)
        mesh = self._mesh.locate(image, region)
        logit = min(first.logit, mesh.logit)
        if logit < FACE_LOGIT:
            return mesh._replace(logit=logit)
        for _ in range(LOOKS_MAX - 2):
            # A face that was seen far from upright takes more looks to be seen as it is.
            before, region = region, Region.of_points(mesh.points)
            if region.turn_from(before) < SETTLED_RAD:
                break
            mesh = self._mesh.locate(image, region)
        return mesh._replace(logit=logit)

    def _others(
        self, image: UInt8[np.ndarray, "H W 3"], min_face_px: float, known: list[FaceDetection]
    ) -> list[FaceDetection]:
        """Find the faces that are too small or too unlike a frontal one for `_large`."""
        boxes = _boxes([face.box + 0.5 for face in known])
        faces: list[FaceDetection] = []
        for box, points, score in zip(*self._mtcnn.find(image, min_face_px, boxes), strict=True):
            if covered(box[None], boxes)[0]:
                continue
            region = Region.of_box(box, points[0], points[1])
            mesh = upright = self._look(image, region)
            if mesh.logit < SURE_LOGIT:
                turned = (self._look(image, region.turned(quarters)) for quarters in (1, 2, 3))
                mesh = max(mesh, *turned, key=lambda mesh: mesh.logit)
            if mesh.logit >= FACE_LOGIT:
                faces.append(_detection(mesh))
            elif score >= LONE_SCORE and _is_upright_face(points, upright):
                faces.append(FaceDetection(box - 0.5, points - 0.5, float(score), confirmed=False))
        return faces


def _detection(mesh: Mesh) -> FaceDetection:
    """Convert to a detection, whose pixel centers lie at integers, no longer at halves."""
    return FaceDetection(mesh.box - 0.5, mesh.five - 0.5, 1 / (1 + math.exp(-mesh.logit)), mesh=mesh)


def _boxes(boxes: list[Float[np.ndarray, "4"]]) -> Float[np.ndarray, "N 4"]:
    return np.array(boxes).reshape(-1, 4)


def _is_upright_face(points: Float[np.ndarray, "5 2"], mesh: Mesh) -> bool:
    radius = np.linalg.norm(points - points.mean(0), axis=1).mean()
    apart = np.linalg.norm(points - mesh.five, axis=1).mean() / radius
    return bool(apart <= LONE_AGREEMENT and abs(roll_of(points)) <= LONE_ROLL_RAD)


def _side(box: Float[np.ndarray, "4"]) -> float:
    return float((box[2:] - box[:2]).max())


def _area(box: Float[np.ndarray, "4"]) -> float:
    return float(np.prod((box[2:] - box[:2]).clip(min=0)))
