"""`leanface reconstruct`: inputs found, reconstructed with a progress bar, and summed up."""

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from leanface.errors import ArtifactError, ConfigError
from leanface.face.mesh import FORMATS
from leanface.files import require_writable
from leanface.reconstruction.flow import reconstruct_all
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.outputs import Settings, VideoSettings
from leanface.reconstruction.sources import STDIN, Source, find_sources, pictures

STDOUT = "-"
MESHES = tuple(suffix.removeprefix(".") for suffix in FORMATS)

logger = logging.getLogger(__name__)


def reconstruct_to(
    lean_face: LeanFace,
    sources: Sequence[Source],
    folder: Path,
    settings: Settings,
    *,
    video: VideoSettings,
    redo: bool = False,
) -> None:
    """Reconstruct all sources into a folder, with a progress bar; each failure is told where it happens.

    Raises:
        ArtifactError: some failed; everything else is written.
    """
    failed: list[str] = []
    faces = count = done = skipped = 0
    countable = video.frames_as == "animation" or all(source.kind == "photo" for source in sources)
    bar = tqdm(total=len(sources) if countable else None, unit="picture", disable=None, file=sys.stderr)

    def watch(frame: int, frames: int | None) -> None:
        """Count an animation's frames as pictures, the last of them by its outcome."""
        if frame > 1:
            bar.update()
        elif frames is not None:
            bar.total += frames - 1

    # Ctrl-C is how a camera is stopped; what it showed is written.
    stops = [KeyboardInterrupt] if any(source.kind == "webcam" for source in sources) else []
    with suppress(*stops), logging_redirect_tqdm(), bar:
        for outcome in reconstruct_all(lean_face, sources, folder, settings, video=video, redo=redo, watch=watch):
            if outcome.error is not None:
                failed.append(outcome.name)
                words = "%s is not complete: %s" if outcome.faces else "left out %s: %s"
                logger.warning(words, outcome.name, outcome.error)
            skipped += outcome.skipped
            done += outcome.faces > 0 or (outcome.error is None and not outcome.skipped)
            faces += outcome.faces
            count += 1
            bar.update()
    known = f", {counted(skipped, 'picture')} done before" if skipped else ""
    if done or skipped:
        logger.info("%s in %s%s: see %s", counted(faces, "face"), counted(done, "picture"), known, folder)
    if failed and not done and not skipped:
        raise ArtifactError("nothing could be reconstructed (see above).")
    if failed:
        raise ArtifactError(
            f"{len(failed)} of {count} pictures could not be reconstructed in full (see above); "
            "the others are written, and a rerun will try only these."
        )


def reconstruct_to_stdout(lean_face: LeanFace, sources: Sequence[Source], settings: Settings) -> None:
    """Write one photo's largest face to standard output: its mesh, or without a mesh its JSON.

    Raises:
        ConfigError: there is not exactly one photo, or the mesh is one of several files.
        ArtifactError: no face can be read in it.
    """
    if len(sources) != 1 or sources[0].kind != "photo":
        raise ConfigError("--out - takes a single photo; name a folder for more.")
    if settings.mesh == "obj":
        raise ConfigError("an OBJ is three files and cannot go to standard output; choose glb, ply, usdz or none.")
    (picture,) = pictures(sources[0])
    (face,) = lean_face.reconstruct(
        picture.load(), texture_size=settings.texture_px or None, delight=settings.delight, faces="largest"
    )
    if settings.mesh is None:
        sys.stdout.write(json.dumps(face.to_json()) + "\n")
        return
    name = f"face.{settings.mesh}"
    sys.stdout.buffer.write(face.encode_mesh(name, settings.texture_format)[name])
    sys.stdout.flush()


def run(
    inputs: Sequence[str],
    out: str,
    settings: Settings,
    *,
    model: Path | None = None,
    runtime: str = "auto",
    threads: int | None = None,
    compare: str | None = None,
    video: VideoSettings,
    redo: bool = False,
) -> None:
    """Run the whole command; see its --help.

    Raises:
        LeanFaceError: of the inputs, the network, or pictures that failed.
    """
    sources = find_sources(inputs)
    if len(sources) > 1 and any(source.label == STDIN for source in sources):
        raise ConfigError("a photo from standard input comes alone; give it no other inputs.")
    if out == STDOUT and compare is not None:
        raise ConfigError("--compare writes pictures and comparison.json: name a folder for them, not --out -.")
    films = any(source.kind != "photo" for source in sources)
    if films and compare is None and video.frames_as == "animation" and settings.mesh not in ("glb", None):
        raise ConfigError(
            f"an animation is a GLB, not {settings.mesh}: leave out --mesh, or take --frames-as folders for a mesh of "
            "each frame."
        )
    if settings.mesh == "usdz":
        from leanface.face.usdz import require_usd

        require_usd()  # before the work, not after it
    with ExitStack() as stack:
        lean_face = stack.enter_context(LeanFace.load(model, runtime, threads, min_face_px=settings.min_face_px))
        if out == STDOUT:
            reconstruct_to_stdout(lean_face, sources, settings)
            return
        require_writable(Path(out))
        if compare is not None:
            from leanface.reconstruction.side_by_side import compare_all, open_teacher

            teacher = stack.enter_context(open_teacher(compare, lean_face, threads))
            compare_all(teacher, lean_face, sources, Path(out), every=video.every, limit=video.limit)
            return
        reconstruct_to(lean_face, sources, Path(out), settings, video=video, redo=redo)


def counted(number: int, noun: str) -> str:
    """Return as in "1 face" and "2,000 faces"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
