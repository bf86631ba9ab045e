"""`leanface reconstruct`: photos, videos or a webcam to textured 3D faces."""

import argparse

from leanface.cli.options import add_network, add_threads, spin
from leanface.cli.parser import USE, Commands, count, name, texture_size
from leanface.errors import ConfigError


def add_commands(commands: Commands) -> None:
    """Add `reconstruct`."""
    parser = commands.add(
        "reconstruct",
        USE,
        "turn photos, videos or a webcam into textured 3D faces",
        "leanface reconstruct astronaut --out faces\nleanface reconstruct album/ clip.mp4 --out faces --texture 4096",
        _reconstruct,
    )
    add = parser.add_argument
    add(
        "inputs", nargs="+", type=name, metavar="INPUT",
        help="file, folder, 'pattern', URL, webcam[:N], or - for standard input",
    )  # fmt: skip
    add(
        "--out", required=True, type=name, metavar="DIR",
        help="a folder per picture or video is made there; - for standard output",
    )  # fmt: skip
    add(
        "--cluster", metavar="ADDRESS",
        help="of a Ray cluster to work on, ray://HEAD:10001 or auto; there --threads is the cores of each worker (1)",
    )  # fmt: skip
    add(
        "--mesh", choices=["glb", "obj", "ply", "usdz", "none"], default="glb", help="format of the mesh (default: glb)"
    )
    add(
        "--texture",
        type=texture_size,
        default=1024,
        metavar="PX",
        help="side of the texture, 0 for the model's own colors (default: 1024)",
    )
    add("--texture-format", choices=["jpeg", "png"], default="jpeg", help="of the texture's file (default: jpeg)")
    add("--delight", action="store_true", help="remove the photo's light from the texture")
    add("--faces", choices=["all", "largest"], default="all", help="faces to take of each picture (default: all)")
    add(
        "--min-face",
        type=count,
        metavar="PX",
        help="height of the smallest face (default: 40, or beside one face that fills the photo a third of its height)",
    )
    add("--no-pictures", action="store_true", help="write neither previews nor overlays")
    add("--compare", metavar="MODEL", help="draw another network beside it, or 'original', with times")
    add("--every", type=count, default=1, metavar="N", help="keep every Nth frame of a video")
    add("--frames", type=count, metavar="N", help="stop after N frames of a video or webcam")
    add(
        "--frames-as",
        choices=["animation", "folders"],
        default="animation",
        help="one animated head per person of a video, or a folder per frame (default: animation)",
    )
    add("--redo", action="store_true", help="do again what an earlier run has finished")
    add_network(parser)
    add_threads(parser, "of the network")


def _reconstruct(arguments: argparse.Namespace) -> None:
    if arguments.compare:
        spin()
    from leanface.batch.storage import is_url
    from leanface.reconstruction.command import run
    from leanface.reconstruction.outputs import Settings, VideoSettings

    settings = Settings(
        mesh=None if arguments.mesh == "none" else arguments.mesh,
        texture_px=arguments.texture,
        texture_format=arguments.texture_format,
        delight=arguments.delight,
        faces=arguments.faces,
        pictures=not arguments.no_pictures,
        min_face_px=arguments.min_face,
    )
    common = {name: getattr(arguments, name) for name in ("inputs", "out", "model", "runtime", "threads", "redo")}
    if arguments.cluster is not None or any(is_url(text) for text in (*arguments.inputs, arguments.out)):
        from leanface.batch.command import run as run_batch

        if arguments.compare:
            raise ConfigError("--compare draws single pictures: leave out --cluster, and name files or folders.")
        run_batch(**common, settings=settings, cluster=arguments.cluster)
        return
    video = VideoSettings(arguments.every, arguments.frames, arguments.frames_as)
    run(**common, settings=settings, compare=arguments.compare, video=video)
