"""Which packages are installed, and which extra of the distribution brings one that a command misses."""

from importlib import metadata

EXTRAS = {
    "train": (
        "dvc", "hydra", "jinja2", "matplotlib", "mlflow", "modelopt", "modelscope_hub", "omegaconf", "onnx",
        "onnx_graphsurgeon", "onnxslim", "optuna", "pytorch_lightning", "safetensors", "scipy", "skimage", "torch",
        "torch_pruning",
    ),
    "serve": ("fastapi", "jinja2", "prometheus_client", "scipy", "torch", "uvicorn"),
    "demo": ("fastapi", "matplotlib", "safetensors", "scipy", "skimage", "torch", "uvicorn"),
    "video": ("av",),
    "engines": ("tensorrt_rtx_bindings", "cuda"),
    "lean": ("tensorrt_lean_bindings",),
    "batch": ("fsspec", "pyarrow", "ray", "s3fs"),
    "ray": ("ray",),
    "usd": ("pxr",),
}  # fmt: skip
"""By extra, the names under which its packages are imported; the first extra that has one is named."""


def missing_message(module: str | None, command: str | None = None) -> str | None:
    """Say how to install what brings a module; None if no extra does, which is then a mistake of ours.

    Args:
        command: the one that misses it: if an extra is named after it, that one is meant.
    """
    package = (module or "").partition(".")[0]
    for extra in sorted(EXTRAS, key=lambda extra: extra != command):
        if package in EXTRAS[extra]:
            return f"{package} is not installed. This needs the extra {extra!r}: pip install 'leanface[{extra}]'"
    return None


def installed_version(distribution: str) -> str | None:
    """Return the version of what is installed; None of what is not, as LeanFace where its sources alone are used."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
