"""Photos in, faces out: the whole reconstruction as a model that MLflow loads and serves.

MLflow keeps this file with the model, beside LeanFace's own code, and runs it where LeanFace is not installed.
"""

import importlib
import io
import json
from typing import Any

import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from leanface.errors import ArtifactError, NoFaceError
from leanface.photos.load import load_photo
from leanface.reconstruction import LeanFace, Reconstruction


class PhotosModel(PythonModel):
    """Finds the faces in photos and reconstructs them."""

    # MLflow would warn that it cannot infer a schema from type hints; the model has a signature.
    _skip_type_hint_validation = True

    def load_context(self, context: PythonModelContext) -> None:
        """Open the network, the detector and the morphable model."""
        artifacts: Any = context.artifacts
        self._lean_face = LeanFace.load(
            artifacts["network"], cpu_model=artifacts.get("cpu_network"), morphable_model=artifacts["morphable_model"]
        )

    def predict(self, context: PythonModelContext, model_input, params=None) -> pd.DataFrame:  # pyright: ignore
        """Return a row for each face: its photo's number, its coefficients, its place and pose as JSON, and a GLB.

        Args:
            model_input: a table whose column `photo` holds image files' bytes. A photo without a face has no rows.
            params: `texture_size` (px) of the GLB, and whether `faces` are "all" or the "largest".

        Raises:
            ArtifactError: a photo cannot be read.
        """
        asked: dict[str, Any] = params or {}  # pyright: ignore[reportUnknownVariableType]
        photos: list[bytes] = list(model_input["photo"])  # pyright: ignore
        rows = [
            {"photo": number, **_row(face)}
            for number, photo in enumerate(photos)
            for face in self._reconstruct(number, photo, **asked)
        ]
        return pd.DataFrame(rows, columns=["photo", "coefficients", "description", "glb"])

    def _reconstruct(
        self, number: int, photo: bytes, texture_size: int = 1024, faces: Any = "all"
    ) -> list[Reconstruction]:
        try:
            image = load_photo(io.BytesIO(photo))
            return self._lean_face.reconstruct(image, texture_size=texture_size, faces=faces)
        except NoFaceError:
            return []
        except ArtifactError as error:
            raise ArtifactError(f"photo {number}: {error}") from None


def _row(face: Reconstruction) -> dict[str, Any]:
    return {
        "coefficients": face.coefficients.astype(np.float32),
        "description": json.dumps(face.to_json()),
        "glb": face.encode_mesh()["face.glb"],
    }


mlflow_models: Any = importlib.import_module("mlflow.models")  # its own types leave this open
mlflow_models.set_model(PhotosModel())
