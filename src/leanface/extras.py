"""Which extra of the distribution brings a package that a command misses."""

EXTRAS = {
    "train": (
        "dvc", "hydra", "jinja2", "matplotlib", "mlflow", "modelopt", "modelscope_hub", "omegaconf", "onnx",
        "onnx_graphsurgeon", "onnxslim", "optuna", "pytorch_lightning", "safetensors", "scipy", "skimage", "torch",
        "torch_pruning",
    ),
    "serve": ("fastapi", "prometheus_client", "uvicorn"),
    "video": ("av",),
    "engines": ("tensorrt_rtx_bindings", "cuda"),
    "ray": ("ray",),
}  # fmt: skip
"""By extra, the names under which its packages are imported; the first extra that has one is named."""


def missing_message(module: str | None) -> str | None:
    """Say how to install what brings a module; None if no extra does, which is then a mistake of ours."""
    package = (module or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if package in packages:
            return f"{package} is not installed. This needs the extra {extra!r}: pip install 'leanface[{extra}]'"
    return None
