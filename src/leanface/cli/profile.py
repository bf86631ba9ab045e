"""`leanface profile`: what each layer takes."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leanface.cli.options import spin
from leanface.cli.parser import USE, Commands, count

if TYPE_CHECKING:
    from leanface.metrics.profile import Profile


def add_commands(commands: Commands) -> None:
    """Add `profile`."""
    parser = commands.add(
        "profile",
        USE,
        "show what each layer takes, networks side by side",
        "leanface profile\nleanface profile models/onnx/teacher_fp32.onnx models/onnx/quantized_int8.onnx\n"
        "leanface profile night/profile.json profile.json       # of two trials, saved before",
        _profile,
    )
    parser.add_argument(
        "files",
        type=Path,
        nargs="*",
        metavar="FILE",
        help=".onnx, a saved profile.json, or what `trtexec --exportProfile` wrote (default: the shipped network)",
    )
    parser.add_argument("--runtime", metavar="NAME", help="openvino, onnxruntime or triton_int8 (default: the best)")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="images at once (default: 1)")
    parser.add_argument("--threads", type=count, metavar="N", help="on the CPU (default: all usable cores)")
    parser.add_argument("--size", type=count, metavar="N", help="side of the images in pixels (default: as exported)")
    parser.add_argument("--layers", type=Path, metavar="FILE", help="what `trtexec --exportLayerInfo` wrote")
    parser.add_argument("--times", type=Path, metavar="FILE", help="what `trtexec --exportTimes` wrote")
    parser.add_argument(
        "--output", type=Path, default=Path("profile.html"), metavar="FILE.html",
        help="the page; what was measured lies beside it as a .json of the same name (default: profile.html)",
    )  # fmt: skip


def _profile(arguments: argparse.Namespace) -> None:
    spin()
    from leanface.errors import ConfigError
    from leanface.metrics.profile import save_profiles
    from leanface.report.profile import profile_name, profile_remark, write_profile_page

    page: Path = arguments.output
    if page.suffix != ".html":
        raise ConfigError(f"--output {page} must end in .html.")
    _require_own(page, page.with_suffix(".json"), arguments.files)
    profiles = [profile for file in arguments.files or [None] for profile in _profiles(file, arguments)]
    for profile in profiles:
        print(f"{profile_name(profile)}: {profile_remark(profile)}")
    if any(file is None or file.suffix != ".json" for file in arguments.files or [None]):
        save_profiles(profiles, page.with_suffix(".json"))
    write_profile_page(profiles, page)
    print(page)


def _require_own(page: Path, saved: Path, inputs: Sequence[Path]) -> None:
    """Refuse to write over an input, or over a file of the user's: "profile.json" is a usual name."""
    from leanface.errors import ArtifactError, ConfigError
    from leanface.metrics.profile import read_profiles
    from leanface.report.profile import is_profile_page

    found = None
    if page.exists() and not is_profile_page(page):
        found = page
    elif saved.exists() and any(file.suffix != ".json" for file in inputs or [Path()]):
        try:
            read_profiles(saved)
            found = saved if any(file.exists() and file.samefile(saved) for file in inputs) else None
        except ArtifactError:
            found = saved
    if found is not None:
        raise ConfigError(f"{found} is there and would be replaced; choose another --output.")


def _profiles(file: Path | None, arguments: argparse.Namespace) -> "tuple[Profile, ...]":
    from leanface.metrics.profile import read_profiles
    from leanface.reconstruction.network import default_files
    from leanface.runtime.profilers import PROFILERS, best_profiled, profile_network
    from leanface.runtime.trtexec import is_trtexec, read_trtexec

    if file is not None and file.suffix == ".json":
        if is_trtexec(file):
            return (read_trtexec(file, arguments.layers, arguments.times),)
        return read_profiles(file)
    files = default_files() if file is None else dict.fromkeys(PROFILERS, file)
    runtime = arguments.runtime or best_profiled(files)
    return (
        profile_network(
            files.get(runtime, Path()), runtime, batch=arguments.batch, image_size=arguments.size,
            threads=arguments.threads or 0,
        ),
    )  # fmt: skip
