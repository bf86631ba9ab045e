"""The command line. Heavy imports wait until a command needs them."""

import argparse
import functools
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanface import paths
from leanface.errors import LeanFaceError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; neither an error that LeanFace raised on purpose nor Ctrl-C prints a traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if argv[:1] == ["sweep"]:
            # Hydra parses the rest. By name: the sweep is this module's equal, and needs Hydra and DVC.
            importlib.import_module("leanface.sweep.app").main(argv[1:])
            return 0
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except LeanFaceError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)  # below "^C", or a progress bar
        return 130  # as a shell counts SIGINT
    return 0


def _stage(arguments: argparse.Namespace) -> None:
    from leanface.runner import run_stage

    run_stage(arguments.name, arguments.variant, arguments.seconds)


def _spin() -> None:
    """Let PyTorch's threads spin while they wait, as they do by default: asleep, which is right beside other work, they
    take twice as long at batch 1, which would flatter every other runtime. OpenMP asks when it is first loaded."""
    os.environ.pop("OMP_WAIT_POLICY", None)


def _bench(arguments: argparse.Namespace) -> None:
    _spin()
    from rich.console import Console

    from leanface.config import Benchmark
    from leanface.runtime.bench import bench_file, print_rows

    settings = Benchmark(
        batches=tuple(sorted({1, *arguments.batches})),
        streams=tuple(sorted({1, *arguments.streams})),
        threads=arguments.threads,
        warmup=10,
        window=15,
        windows_max=10,
        stability=0.05,
        energy_seconds=1.0,
    )
    console = Console(width=None if sys.stdout.isatty() else 140)  # a file has no width
    if arguments.end_to_end:
        from leanface.reconstruction.bench import bench_end_to_end, print_steps

        print_steps(bench_end_to_end(arguments.model, settings), console)
        return
    from leanface.reconstruction.network import default_model

    model = arguments.model or default_model()
    rows = bench_file(model, settings, original=arguments.original, image_size=arguments.size)
    print_rows(rows, console)


def _reconstruct(arguments: argparse.Namespace) -> None:
    if arguments.compare:
        _spin()
    from leanface.reconstruction.command import run
    from leanface.reconstruction.outputs import Settings

    settings = Settings(
        network="",
        mesh=None if arguments.mesh == "none" else arguments.mesh,
        texture_px=arguments.texture,
        delight=arguments.delight,
        faces=arguments.faces,
        pictures=not arguments.no_pictures,
    )
    run(
        arguments.inputs,
        arguments.out,
        settings,
        model=arguments.model,
        runtime=arguments.runtime,
        threads=arguments.threads,
        min_face_px=arguments.min_face,
        compare=arguments.compare,
        every=arguments.every,
        limit=arguments.frames,
        redo=arguments.redo,
    )


def _ablate(arguments: argparse.Namespace) -> None:
    from leanface.ablation.ablate import ablate

    table = arguments.table or paths.CONF / "ablation" / f"{arguments.name}.yaml"
    ablate(arguments.name, table, paths.ABLATIONS / table.stem, arguments.steps, arguments.share, arguments.seconds)


def _gate(arguments: argparse.Namespace) -> None:
    from leanface.report.gate import require_gates

    for line in require_gates(paths.SUMMARY):
        print(line)


def _serve(arguments: argparse.Namespace) -> None:
    # The face detector's threads, if they spin while they wait, take the processors from all else that runs here, and
    # the service is soon the slowest of all. OpenMP asks when it is first loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from leanface.errors import BackendError

    try:
        from leanface.serving.run import serve
        from leanface.serving.settings import Settings
    except ModuleNotFoundError as error:
        raise BackendError(f"{error}; `pip install -c constraints.txt leanface[serve]`.") from None
    given = {name: value for name in Settings.model_fields if (value := getattr(arguments, name, None)) is not None}
    key = os.environ.get("LEANFACE_API_KEY")
    serve(Settings.given(given | ({"api_key": key} if key else {})), arguments.host, arguments.port)


def _demo(arguments: argparse.Namespace) -> None:
    _spin()
    from leanface.errors import BackendError

    try:
        from leanface.demo.app import run
    except ModuleNotFoundError as error:
        raise BackendError(f"{error}; `pip install -c constraints.txt leanface[demo]`.") from None
    run(
        arguments.host,
        arguments.port,
        model=arguments.model,
        runtime=arguments.runtime,
        original=arguments.compare,
        threads=arguments.threads,
    )


def _load(arguments: argparse.Namespace) -> None:
    from leanface.data.photos import photo_path
    from leanface.errors import ArtifactError
    from leanface.serving import load

    try:
        photo = photo_path(arguments.photo).read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {arguments.photo}: {error.strerror}; name a photo's file.") from None
    rates = sorted(arguments.rates)
    with load.own_service(arguments.serve) as url:
        loads = load.measure(url, photo, rates, arguments.seconds)
    print(load.markdown(loads), end="")
    settings = {"photo": str(arguments.photo), "seconds": arguments.seconds, "serve": arguments.serve}
    load.save(arguments.out, loads, settings)
    print(f"kept in {arguments.out}")


def _drift(arguments: argparse.Namespace) -> None:
    from leanface.serving.input_drift import drift_of, markdown

    print(markdown(drift_of(arguments.inputs, arguments.model, arguments.runtime)), end="")


def _adaptive(arguments: argparse.Namespace) -> None:
    from leanface.serving import adaptive_bench

    rows = adaptive_bench.measure(arguments.small, arguments.large, arguments.runtime, arguments.threads)
    print(adaptive_bench.markdown(rows), end="")
    adaptive_bench.save(arguments.out, rows, arguments.small, arguments.large)


def _export_bundle(arguments: argparse.Namespace) -> None:
    from leanface.deployment.bundle import export_bundle
    from leanface.reconstruction.lean_face import morphable_model_of
    from leanface.reconstruction.network import default_model

    model = arguments.model or default_model()
    export_bundle(model, arguments.morphable_model or morphable_model_of(model), arguments.folder)
    print(f"{arguments.folder}: run `python reconstruct.py --check` there")


def _export_triton(arguments: argparse.Namespace) -> None:
    from leanface.deployment.triton import export_triton
    from leanface.reconstruction.network import default_model

    written = export_triton(arguments.model or default_model(), arguments.plan, arguments.folder, arguments.batch)
    print(f"{arguments.folder}: {', '.join(written.models)}")
    if written.reason:
        print(f"leanface_tensorrt has no plan, TensorRT will build its engine: {written.reason}")


def _track(arguments: argparse.Namespace) -> None:
    from leanface import tracking

    print(f"delivered {tracking.deliver()} runs to {tracking.tracking_uri()}")


def _offline_run(arguments: argparse.Namespace) -> None:
    from leanface.offline.run import run_offline

    # As Ctrl-C: `timeout` and job schedulers send it, and a stage, in a session of its own, would run on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_offline(arguments.stages.split(","), arguments.seconds, arguments.config, arguments.set)


def _offline_pack(arguments: argparse.Namespace) -> None:
    from leanface.offline.pack import pack

    packed = pack(
        arguments.folder,
        arguments.stages.split(","),
        int(arguments.part_mib * 2**20),
        reports=arguments.reports.split(",") if arguments.reports else (),
        weights=not arguments.no_weights,
    )
    print(f"{packed.size_bytes / 1e6:.1f} MB in {len(packed.parts)} parts: {', '.join(map(str, packed.parts))}")


def _offline_unpack(arguments: argparse.Namespace) -> None:
    from leanface.offline.pack import restore

    print(f"put back: {', '.join(restore(arguments.folder).steps)}")


def _import_run(arguments: argparse.Namespace) -> None:
    from leanface.offline.bring import import_run

    print(f"kept in {import_run(arguments.folder, arguments.name, keep_only=arguments.keep_only)}")


def _results(arguments: argparse.Namespace) -> None:
    from leanface.report.gpu import asks, write_results

    found = asks(write_results(arguments.run_folder, arguments.folder, arguments.cpu))
    unmet = [ask for ask in found if ask.verdict != "met"]
    for ask in unmet:
        print(f"{ask.verdict}: {ask.name}, {ask.network}: {ask.reached}, asked {ask.asked}")
    print(f"{arguments.folder / 'README.md'}: {len(found) - len(unmet)} of {len(found)} targets, goals and gates met")


def _compare(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140)  # a file has no width
    # By name: the sweep is this module's equal, and needs Hydra and DVC.
    importlib.import_module("leanface.sweep.compare").compare(arguments.names, arguments.sweep, console)


def _promote(arguments: argparse.Namespace) -> None:
    for line in importlib.import_module("leanface.sweep.compare").promote(arguments.name):
        print(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leanface", description="Compress a 3D-face-reconstruction network, and prove the result."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stage = commands.add_parser("stage", help="run one stage; `dvc repro` runs all that are due")
    stages = (paths.ASSETS.parent / "stages").glob("[!_]*.py")
    stage.add_argument("name", choices=sorted(path.stem for path in stages))
    stage.add_argument("--variant", choices=paths.EXPORTED, help="for stages that run once per variant")
    stage.add_argument("--seconds", type=float, help="stop a training, or a benchmark's measuring, after so long")
    stage.set_defaults(run=_stage)
    reconstruct = commands.add_parser("reconstruct", help="photos, videos or a webcam to textured 3D faces")
    add = reconstruct.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="file, folder, 'pattern', webcam[:N], or - for standard input")
    add("--out", required=True, metavar="DIR", help="a folder per picture is made there; - for standard output")
    add("--mesh", choices=["glb", "obj", "ply", "none"], default="glb", help="(default: glb)")
    add("--texture", type=_size, default=1024, metavar="PX", help="its side, 0 for the model's colours (default: 1024)")
    add("--delight", action="store_true", help="take the light out of the texture")
    add("--faces", choices=["all", "largest"], default="all", help="of each picture (default: all)")
    add("--min-face", type=_count, default=40, metavar="PX", help="height of the smallest face (default: 40)")
    add("--no-pictures", action="store_true", help="neither previews nor overlays")
    add("--compare", metavar="MODEL", help="another network beside it, or 'original': pictures of both, with times")
    add("--every", type=_count, default=1, metavar="N", help="each Nth frame of a video")
    add("--frames", type=_count, metavar="N", help="at most so many frames of a video or webcam")
    add("--redo", action="store_true", help="also what an earlier run has finished")
    add("--model", type=Path, help=".onnx, bundle or .plan; by default the one that LeanFace ships or made here")
    add("--runtime", default="auto", help="(default: the best that runs the model here)")
    add("--threads", type=_count, metavar="N", help="of the network (default: all)")
    reconstruct.set_defaults(run=_reconstruct)
    bench = commands.add_parser("bench", help="measure an exported network in every runtime that can run it here")
    bench.add_argument("model", type=Path, nargs="?", metavar="MODEL.onnx", help="by default the shipped one")
    number = functools.partial(bench.add_argument, type=_count, metavar="N")
    number("--batches", nargs="+", default=[8], help="batch sizes beside 1 (default: 8)")
    number("--streams", nargs="+", default=[1], help="batches at once, beside 1 (default: none)")
    number("--threads", default=os.cpu_count(), help="of all streams together (default: all)")
    number("--size", help="height and width of the images (px) other than those that the file was exported for")
    bench.add_argument(
        "--original",
        type=Path,
        metavar="BUNDLE",
        help="a bundle that PyTorch runs in the same run, to be compared with",
    )
    bench.add_argument(
        "--end-to-end", action="store_true", help="from photo to mesh, step by step, in the best runtime"
    )
    bench.set_defaults(run=_bench)
    gate = commands.add_parser("gate", help="fail if the last report's gates failed, and say which")
    gate.set_defaults(run=_gate)
    serve = commands.add_parser(
        "serve", help="the network behind HTTP; clients need the key in LEANFACE_API_KEY, if it is set"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    serve.add_argument("--port", type=_port, default=8000)
    serve.add_argument("--model", type=Path, help="an exported network; by default the one that LeanFace ships")
    serve.add_argument("--runtime", help="what runs it (default: the best that can)")
    serve.add_argument("--larger", type=Path, help="a second network, which reads strange faces again")
    serve.add_argument("--budget-ms", type=float, help="what that may cost per face, on average")
    for name, text in {
        "threads": "of each worker",
        "workers": "processes with a network each (default: 1)",
        "batch-max": "photos read together (default: 8)",
        "queue-max": "photos that may wait; more are refused (default: 64)",
        "bytes-max": "of a photo's file (default: 20 MiB)",
        "pixels-max": "of a photo (default: 50 million)",
        "faces-max": "read in one photo (default: 16)",
    }.items():
        serve.add_argument(f"--{name}", type=_count, metavar="N", help=text)
    serve.add_argument("--batch-wait-ms", type=float, metavar="MS", help="wait for a second photo (default: 2)")
    serve.add_argument("--time-limit-s", type=float, metavar="S", help="from a photo to its answer (default: 20)")
    serve.add_argument("--cors-origins", nargs="+", metavar="ORIGIN", help="web pages that may use it (default: none)")
    serve.add_argument("--tick-s", type=float, metavar="S", help="how often the monitor judges (default: 10)")
    serve.add_argument("--no-drift", dest="watch_drift", action="store_const", const=False, help="do not watch drift")
    serve.add_argument("--track", action="store_const", const=True, help="write the monitor's numbers to MLflow")
    serve.set_defaults(run=_serve)
    demo = commands.add_parser("demo", help="a page in the browser: a photo in, its 3D face by both networks out")
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    demo.add_argument("--port", type=_port, default=7860)
    demo.add_argument("--model", type=Path, help=".onnx, bundle or .plan; by default the one shipped or made here")
    demo.add_argument("--compare", default="original", metavar="MODEL", help="stands beside it (default: original)")
    demo.add_argument("--runtime", default="auto", help="(default: the best that runs the model here)")
    demo.add_argument("--threads", type=_count, metavar="N", help="of each network (default: all)")
    demo.set_defaults(run=_demo)
    load = commands.add_parser(
        "load", help="how long requests to a service of this machine take, and when it is saturated"
    )
    load.add_argument(
        "--rates", type=_rate, nargs="+", default=[2.0, 5.0, 10.0, 20.0], metavar="R", help="offered per second"
    )
    load.add_argument("--seconds", type=_rate, default=10.0, help="for each rate (default: 10)")
    load.add_argument("--photo", default="astronaut", help="a file, or the name of a packaged photo")
    load.add_argument("--out", type=Path, default=paths.LOAD_REPORT, metavar="DIR", help="of load.json and load.md")
    load.add_argument("serve", nargs="*", metavar="-- OPTION", help="of `leanface serve`")
    load.set_defaults(run=_load)
    drift = commands.add_parser("drift", help="whether photos look like what the network was trained on")
    drift.add_argument("inputs", nargs="+", metavar="INPUT", help="photo, folder, 'pattern' or video")
    drift.add_argument("--model", type=Path, help=".onnx, bundle or .plan; by default the one shipped or made here")
    drift.add_argument("--runtime", default="auto", help="(default: the best that runs the model here)")
    drift.set_defaults(run=_drift)
    adaptive = commands.add_parser("adaptive", help="what reading strange faces again with a larger network is worth")
    adaptive.add_argument("--small", type=Path, default=paths.onnx_path(paths.DEPLOYED), metavar="FILE.onnx")
    adaptive.add_argument("--large", type=Path, default=paths.onnx_path("original_fp32"), metavar="FILE.onnx")
    adaptive.add_argument("--runtime", default="auto")
    adaptive.add_argument("--threads", type=_count, metavar="N")
    adaptive.add_argument("--out", type=Path, default=paths.ADAPTIVE_REPORT, metavar="DIR")
    adaptive.set_defaults(run=_adaptive)
    export = commands.add_parser("export", help="the network for other software: without PyTorch, or in Triton")
    forms = export.add_subparsers(required=True, metavar="FORM")
    bundle = forms.add_parser("bundle", help="a folder that needs only numpy and OpenVINO or ONNX Runtime")
    bundle.add_argument("--morphable-model", type=Path, metavar="FILE.npz", help="by default the network's own")
    bundle.set_defaults(run=_export_bundle)
    triton = forms.add_parser("triton", help="a model repository for Triton Inference Server")
    triton.add_argument("--plan", type=Path, default=paths.engine_path(paths.DEPLOYED), help="engine of full TensorRT")
    triton.add_argument("--batch", type=_count, default=32, metavar="N", help="largest batch (default: 32)")
    triton.set_defaults(run=_export_triton)
    for form in (bundle, triton):
        form.add_argument("folder", type=Path, metavar="DIR")
        form.add_argument("--model", type=Path, metavar="FILE.onnx", help="by default the one that LeanFace ships")
    track = commands.add_parser("track", help="deliver to MLflow what it could not take earlier")
    track.set_defaults(run=_track)
    ablate = commands.add_parser("ablate", help="what each part of a stage's method is worth, under equal conditions")
    ablate.add_argument("name", choices=["distill", "quantize"])
    ablate.add_argument("--table", type=Path, help="YAML of variants; conf/ablation/NAME.yaml by default")
    ablate.add_argument("--steps", type=int, help="of training, in place of the configuration's")
    ablate.add_argument("--share", type=_share, default=(1, 1), metavar="N/M", help="the Nth of M processes beside it")
    ablate.add_argument("--seconds", type=float, help="train no longer than this; the same command goes on")
    ablate.set_defaults(run=_ablate)
    _add_offline(commands)
    results = commands.add_parser("results", help="tables and a picture of a GPU's run, for docs/results/")
    results.add_argument("run_folder", type=Path, metavar="RUN", help="what import-run made, or this folder: .")
    results.add_argument("folder", type=Path, help="to write to")
    results.add_argument("--cpu", type=Path, help="benchmark.json of the same networks on a CPU, to stand beside it")
    results.set_defaults(run=_results)
    compare = commands.add_parser("compare", help="experiments side by side, and which one to take")
    compare.add_argument("names", nargs="*", metavar="EXP", help="DVC experiments (default: all)")
    compare.add_argument("--sweep", metavar="NAME", help="the trials of this sweep, with those that failed")
    compare.set_defaults(run=_compare)
    promote = commands.add_parser("promote", help="apply an experiment that passes its gates; make it the champion")
    promote.add_argument("name", metavar="EXP")
    promote.set_defaults(run=_promote)
    commands.add_parser("sweep", help="run an experiment per combination of parameters", add_help=False)
    return parser


def _add_offline(commands: Any) -> None:
    offline = commands.add_parser("offline", help="run stages where there is neither network nor DVC nor MLflow")
    actions = offline.add_subparsers(required=True, metavar="ACTION")
    run = actions.add_parser("run", help="run stages from a resolved configuration; what is up to date is skipped")
    run.add_argument("--stages", required=True, metavar="A,B", help="of dvc.yaml; export stands for every export@...")
    run.add_argument("--seconds", type=float, default=560.0, help="after which nothing runs any more (default: 560)")
    run.add_argument("--config", type=Path, default=paths.CONFIG, help=f"resolved (default: {paths.CONFIG})")
    run.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of it")
    run.set_defaults(run=_offline_run)
    pack = actions.add_parser("pack", help="write reports, logs and half-size weights as a few files")
    pack.add_argument("folder", type=Path)
    pack.add_argument("--stages", required=True, metavar="A,B", help="whose weights and reports are taken")
    pack.add_argument("--reports", metavar="A,B", help="stages whose reports are taken without their weights")
    pack.add_argument("--part-mib", type=float, default=16.0, help="size of a file (default: 16)")
    pack.add_argument("--no-weights", action="store_true", help="reports only, of one of many runs")
    pack.set_defaults(run=_offline_pack)
    unpack = actions.add_parser("unpack", help="put what was packed back, to go on on a new machine")
    unpack.add_argument("folder", type=Path)
    unpack.set_defaults(run=_offline_unpack)
    bring = commands.add_parser("import-run", help="take over what `offline pack` wrote elsewhere: DVC, MLflow, runs/")
    bring.add_argument("folder", type=Path)
    bring.add_argument("--name", required=True, help="of its folder in runs/")
    bring.add_argument("--keep-only", action="store_true", help="leave the pipeline's own results as they are")
    bring.set_defaults(run=_import_run)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected 1 to 65535, got {text!r}")
    return int(text)


def _share(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected 1/4 for the first of four processes, got {text!r}")
    return int(number), int(count)


def _rate(text: str) -> float:
    """Bounded: this machine has to send it all."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.1 <= number <= 500:
        raise argparse.ArgumentTypeError(f"expected a number from 0.1 to 500, got {text!r}")
    return number


def _size(text: str) -> int:
    if not text.isdecimal() or not (int(text) == 0 or 64 <= int(text) <= 4096):
        raise argparse.ArgumentTypeError(f"expected 0, or 64 to 4096, got {text!r}")
    return int(text)
