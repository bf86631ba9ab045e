"""Stage build: one variant's TensorRT engine. Building it needs no GPU with TensorRT-RTX; running it does."""

from leanface import paths
from leanface.config import Build
from leanface.runtime.engine import build_engine


def run(*, variant: str, build: Build) -> dict[str, float]:
    engine = build_engine(paths.onnx_path(variant), paths.engine_path(variant), build)
    return {"size_bytes": float(engine.size_bytes), "build_seconds": engine.build_seconds}
