"""`leanface export`: the network for other software."""

import argparse
from pathlib import Path

from leanface import catalog, paths
from leanface.cli.parser import DEPLOY, Commands, count


def add_commands(commands: Commands) -> None:
    """Add `export` with its forms."""
    parser = commands.add(
        "export",
        DEPLOY,
        "write the network for other software: without PyTorch, for browsers, or for Triton",
        "leanface export bundle deploy/\nleanface export web site/\nleanface export triton repository/",
    )
    forms = parser.add_subparsers(required=True, metavar="FORM")
    bundle = forms.add_parser("bundle", help="a folder that needs only numpy and OpenVINO or ONNX Runtime")
    bundle.set_defaults(run=_export_bundle)
    web = forms.add_parser("web", help="a static site that reads photos in the browser")
    web.add_argument(
        "--onnxruntime-web", type=Path, metavar="FILE.tgz", help="npm's archive of it (default: npm downloads it)"
    )
    web.set_defaults(run=_export_web)
    for form in (bundle, web):
        form.add_argument(
            "--morphable-model", type=Path, metavar="FILE.npz", help="of a network that reads faces (default: its own)"
        )
    triton = forms.add_parser("triton", help="a model repository for Triton Inference Server")
    triton.add_argument(
        "--plan", type=Path, default=paths.engine_path(catalog.DEPLOYED), help="engine of full TensorRT"
    )
    triton.add_argument("--batch", type=count, default=32, metavar="N", help="largest batch (default: 32)")
    triton.set_defaults(run=_export_triton)
    for form in (bundle, web, triton):
        form.add_argument("folder", type=Path, metavar="DIR")
        form.add_argument("--model", type=Path, metavar="FILE.onnx", help="(default: the one that LeanFace ships)")


def _export_bundle(arguments: argparse.Namespace) -> None:
    from leanface.config import FACE
    from leanface.deployment.bundle import export_bundle
    from leanface.reconstruction.lean_face import morphable_model_of
    from leanface.reconstruction.network import default_flavors
    from leanface.runtime.onnx_file import read_onnx

    model, cpu = default_flavors() if arguments.model is None else (arguments.model, None)
    cpu = cpu if cpu is not None and cpu.is_file() else None
    morphable_model: Path | None = arguments.morphable_model
    if morphable_model is None and read_onnx(model).task == FACE:
        morphable_model = morphable_model_of(model)
    script = export_bundle(model, arguments.folder, cpu=cpu, morphable_model=morphable_model)
    flavors = "" if cpu is None else " two flavors of the network, the one for CPUs for processors with VNNI;"
    print(f"{arguments.folder}:{flavors} run `python {script} --check` there")


def _export_web(arguments: argparse.Namespace) -> None:
    from leanface.deployment.web import export_web
    from leanface.reconstruction.lean_face import morphable_model_of
    from leanface.reconstruction.network import default_flavors

    model, cpu = default_flavors() if arguments.model is None else (arguments.model, None)
    model = cpu if cpu is not None and cpu.is_file() else model  # WebAssembly computes both flavors exactly
    own = arguments.morphable_model or morphable_model_of(model)
    size = export_web(model, own, arguments.folder, arguments.onnxruntime_web)
    print(f"{arguments.folder}: {size / 1e6:.1f} MB for any web server, such as `python -m http.server`")


def _export_triton(arguments: argparse.Namespace) -> None:
    from leanface.deployment.triton import export_triton
    from leanface.reconstruction.network import default_model

    written = export_triton(arguments.model or default_model(), arguments.plan, arguments.folder, arguments.batch)
    print(f"{arguments.folder}: {', '.join(written.models)}")
    if written.reason:
        print(f"leanface_tensorrt has no plan, TensorRT will build its engine: {written.reason}")
