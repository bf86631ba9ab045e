"""Videos as people have them: turned, stretched, tagged and untagged, cut, damaged, with covers and sound."""

import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from leanface.errors import ArtifactError
from leanface.photos import video as reader
from leanface.photos.pixels import BY_ORIENTATION
from leanface.photos.video import Frame, Video, open_camera, open_video

av: Any = pytest.importorskip("av")

WIDTH, HEIGHT, RATE = 64, 48, 25

CODECS = {
    "mp4": "libx264",
    "mov": "libx264",
    "mkv": "libx264",
    "webm": "libvpx-vp9",
    "avi": "mpeg4",
    "ts": "libx264",
    "mpg": "mpeg2video",
    "3gp": "mpeg4",
    "flv": "flv",
    "wmv": "wmv2",
    "m4v": "mpeg4",
}

CORNERS = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
CORNERS[:16, :24] = (250, 20, 60)
CORNERS[:16, 40:] = (20, 60, 250)
CORNERS[32:, 48:] = (240, 240, 240)
"""No turn or mirror image of it is like another one."""


def write(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str | None = None,
    *,
    setup: Callable[[Any], None] = lambda _: None,
    times: Sequence[int] | None = None,
    seconds_of_sound: float = 0.0,
    **options: str,
) -> Path:
    """A video of RGB pictures, which `times` shows at these frames of 1/25 s."""
    with av.open(str(path), "w", options=options) as container:
        sound = container.add_stream("aac", rate=44_100) if seconds_of_sound else None
        stream = container.add_stream(codec or CODECS[path.suffix[1:]], rate=RATE)
        stream.height, stream.width = pictures[0].shape[:2] if len(pictures) else (HEIGHT, WIDTH)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        setup(stream)
        if not len(pictures):
            container.start_encoding()
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = times[index] if times else index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None) if len(pictures) else [])
        if sound is not None:
            for start in range(0, int(44_100 * seconds_of_sound), 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
                silence.rate, silence.pts = 44_100, start
                container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


def grays(count: int) -> list[np.ndarray]:
    return [np.full((HEIGHT, WIDTH, 3), 20 + 8 * index, np.uint8) for index in range(count)]


def read(path: Path, **options: Any) -> tuple[list[Frame], Video]:
    with open_video(path) as video:
        return list(video.frames(**options)), video


def level(frame: Frame) -> int:
    return round((float(frame.image().mean()) - 20) / 8)


@pytest.mark.parametrize("suffix", CODECS)
def test_every_kind_of_file_gives_its_frames_in_order_from_time_zero(tmp_path: Path, suffix: str) -> None:
    frames, video = read(write(tmp_path / f"clip.{suffix}", grays(12)))
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.seconds for frame in frames] == pytest.approx([index / RATE for index in range(12)], abs=2e-3)
    assert [level(frame) for frame in frames] == list(range(12))
    assert video.loss is None


def test_frames_are_kept_by_number_and_pictures_outlive_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", grays(12))
    frames, video = read(path, every=5)
    assert [(frame.index, level(frame)) for frame in frames] == [(0, 0), (5, 5), (10, 10)]
    assert (video.frames_promised, video.seconds_promised) == (12, pytest.approx(0.48))
    frames, video = read(path, every=5, limit=2)
    assert [frame.index for frame in frames] == [0, 5]
    assert video.loss is None


def test_frames_are_freed_as_soon_as_they_are_read(tmp_path: Path) -> None:
    """Not by Python's collector of cycles: it sees small objects, and waits for many."""
    path = write(tmp_path / "clip.mp4", grays(28))
    gc.collect()
    gc.disable()
    try:
        with open_video(path) as video:
            for frame in video.frames():
                frame.image()
            del frame
        assert sum(type(each) is av.VideoFrame for each in gc.get_objects()) < 10
    finally:
        gc.enable()


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
def test_uneven_times_are_kept_and_are_no_loss(tmp_path: Path, suffix: str) -> None:
    frames, video = read(write(tmp_path / f"clip.{suffix}", grays(5), times=[0, 1, 5, 6, 200]))
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.04, 0.2, 0.24, 8.0], abs=2e-3)
    assert video.loss is None


def test_frames_that_avi_repeats_are_no_loss(tmp_path: Path) -> None:
    frames, video = read(write(tmp_path / "clip.avi", grays(5), times=[0, 1, 5, 6, 20]))
    assert (len(frames), video.frames_promised, video.loss) == (5, 21, None)


def test_longer_sound_is_no_loss(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv"):
        frames, video = read(write(tmp_path / f"clip.{suffix}", grays(5), seconds_of_sound=1.0))
        assert (len(frames), video.loss) == (5, None)


def test_a_part_chosen_by_an_edit_list_is_all_there_is(tmp_path: Path) -> None:
    """As phones trim without encoding again."""
    content = bytearray(write(tmp_path / "clip.mp4", grays(20)).read_bytes())
    duration = content.find(b"elst") + 12
    content[duration : duration + 4] = (400).to_bytes(4, "big")  # milliseconds
    (tmp_path / "clip.mp4").write_bytes(content)
    frames, video = read(tmp_path / "clip.mp4")
    assert (len(frames), video.loss) == (10, None)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mov", "mpeg4"), ("mkv", "libvpx-vp9")])
def test_frames_are_turned_as_players_turn_them(
    tmp_path: Path, suffix: str, codec: str, degrees: int, mirrored: bool
) -> None:
    shown = np.rot90(CORNERS, degrees // 90)
    shown = shown[:, ::-1] if mirrored else shown
    stored = CORNERS

    def setup(stream: Any) -> None:
        stream.set_display_rotation(degrees, hflip=mirrored)

    (frame,), _ = read(write(tmp_path / f"clip.{suffix}", [stored], codec, setup=setup))
    assert frame.image().shape == shown.shape
    assert np.abs(frame.image().astype(int) - shown).mean() < 12
    assert frame.image().flags.c_contiguous


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_with_data_that_pyav_has_no_name_for_are_turned_too(tmp_path: Path, degrees: int) -> None:
    """EXIF data in each frame, as cameras write Motion JPEG."""
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x010F] = "a camera's name"
    Image.fromarray(CORNERS).save(content, "JPEG", exif=exif, quality=95)
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream = container.add_stream("mjpeg", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        stream.set_display_rotation(degrees)
        packet = av.Packet(content.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, RATE)
        container.mux(packet)
    (frame,), _ = read(tmp_path / "clip.mov")
    with pytest.raises(ValueError, match="not a valid Type"):
        list(frame._decoded.side_data)  # or else this tests nothing
    shown = np.rot90(CORNERS, degrees // 90)
    assert np.abs(frame.image().astype(int) - shown).mean() < 12


def test_a_png_with_a_color_profile_crashes_nothing(tmp_path: Path) -> None:
    """In a process of its own: PyAV's crash would end the tests."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()  # pyright: ignore[reportUnknownArgumentType]
    Image.fromarray(CORNERS).save(tmp_path / "clip.mp4", "PNG", icc_profile=profile)
    program = (
        "import sys, pathlib, leanface.photos.video as video\n"
        "with video.open_video(pathlib.Path(sys.argv[1])) as clip:\n"
        "    print([frame.image().shape for frame in clip.frames()])"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "clip.mp4"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"[({HEIGHT}, {WIDTH}, 3)]\n")


def test_turns_are_those_of_exif() -> None:
    for orientation, turn in BY_ORIENTATION.items():
        image = Image.fromarray(CORNERS)
        image.getexif()[0x0112] = orientation
        np.testing.assert_array_equal(turn.apply(CORNERS), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize(
    ("ratio", "size"), [((2, 1), (128, 48)), ((1, 2), (64, 96)), ((16, 15), (68, 48)), ((0, 1), (64, 48))]
)
def test_pixels_are_made_square(tmp_path: Path, ratio: tuple[int, int], size: tuple[int, int]) -> None:
    def setup(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(*ratio)

    (frame,), _ = read(write(tmp_path / "clip.mp4", [CORNERS], setup=setup))
    assert frame.image().shape[1::-1] == size


def test_narrow_pixels_of_a_turned_video_are_stretched_before_it_is_turned(tmp_path: Path) -> None:
    def setup(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        stream.set_display_rotation(90)

    (frame,), _ = read(write(tmp_path / "clip.mp4", [CORNERS], setup=setup))
    assert frame.image().shape == (128, 48, 3)


COLOR = (180, 90, 40)


@pytest.mark.parametrize(
    ("size", "matrix", "tagged"),
    [
        ((640, 480), 6, False),
        ((640, 480), 6, True),
        ((640, 480), 1, True),
        ((1280, 720), 1, False),
        ((1280, 720), 6, True),
    ],
)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_colors_come_back_from_each_matrix_named_or_not(
    tmp_path: Path, size: tuple[int, int], matrix: int, tagged: bool, pixel_format: str
) -> None:
    picture = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), COLOR, np.uint8), format="rgb24")
    stored = picture.reformat(
        format=pixel_format, dst_colorspace={1: "ITU709", 6: "SMPTE170M"}[matrix], dst_color_range="MPEG"
    )
    path = lossless(tmp_path / "clip.mkv", stored, colorspace=matrix if tagged else 2)
    (frame,), _ = read(path)
    np.testing.assert_allclose(frame.image().mean((0, 1)), COLOR, atol=2.5)


def lossless(path: Path, frame: Any, **tags: int) -> Path:
    """One frame, with exactly these color tags."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        frame.colorspace, frame.color_trc, frame.color_primaries, frame.color_range = 2, 2, 2, 1
        stream.codec_context.color_range = 1
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            setattr(frame, name, value)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("first", [True, False])
def test_an_attached_cover_is_not_the_video(tmp_path: Path, suffix: str, first: bool) -> None:
    path = tmp_path / f"clip.{suffix}"
    assert [level(frame) for frame in read(with_cover(path, first, 3))[0]] == [0, 1, 2]


def with_cover(path: Path, first: bool, frames: int) -> Path:
    """A video with a larger cover picture, before or behind it."""
    from av.stream import Disposition

    picture = np.full((240, 320, 3), 250, np.uint8)
    with av.open(str(path), "w") as container:

        def add_cover() -> Any:
            if path.suffix == ".mkv":
                content = io.BytesIO()
                Image.fromarray(picture).save(content, "JPEG")
                return container.add_attachment("cover.jpg", "image/jpeg", content.getvalue())
            cover = container.add_stream("mjpeg", rate=RATE)
            cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
            cover.disposition = Disposition.attached_pic
            return cover

        cover = add_cover() if first else None
        stream = container.add_stream("mpeg4", rate=RATE) if frames else None
        cover = cover or add_cover()
        if stream is not None:
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if cover.type == "video":
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
            container.mux([*cover.encode(frame), *cover.encode(None)])
        for gray in grays(frames):
            assert stream is not None
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode(None))
    return path


def test_sound_with_a_cover_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="only a cover picture"):
        open_video(with_cover(tmp_path / "song.mp4", True, 0))


CUT = [(suffix, flags) for suffix in ("mp4", "mov") for flags in ("", "faststart", "frag_keyframe+empty_moov")]
CUT += [(suffix, "") for suffix in ("mkv", "webm", "avi", "3gp", "flv", "m4v")]


@pytest.mark.parametrize(("suffix", "movflags"), CUT)
def test_a_cut_video_gives_what_it_has_and_says_what_is_missing(tmp_path: Path, suffix: str, movflags: str) -> None:
    options = {"movflags": movflags} if movflags else {}
    noise = np.random.default_rng(0).integers(0, 256, (25, HEIGHT, WIDTH, 3), np.uint8)
    content = write(tmp_path / f"whole.{suffix}", noise, **options).read_bytes()
    assert len(read(tmp_path / f"whole.{suffix}")[0]) == 25
    path, some = tmp_path / f"cut.{suffix}", 0
    for length in range(0, int(0.95 * len(content)), max(1, len(content) // 40)):
        path.write_bytes(content[:length])
        try:
            frames, video = read(path)
        except ArtifactError:  # without its index nothing can be found
            continue
        some += bool(frames)
        assert len(frames) < 25
        assert video.loss is not None, length
        assert "cut" in video.loss
        if frames and video.frames_promised:
            assert "25" in video.loss
    assert some > 5 or (suffix in ("mp4", "mov", "3gp", "m4v") and not movflags)


def test_a_damaged_frame_in_the_middle_is_left_out_and_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (25, HEIGHT, WIDTH, 3), np.uint8)
    path = write(tmp_path / "clip.mp4", noise, "mjpeg", setup=lambda stream: setattr(stream, "pix_fmt", "yuvj420p"))
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux() if packet.size][12]
    content = bytearray(path.read_bytes())
    content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(content)
    frames, video = read(path)
    assert len(frames) == 24
    assert video.loss is not None
    assert video.loss.startswith(f"only 24 of 25 frames of {path} could be read")


def test_a_damaged_first_key_frame_is_left_out_and_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, HEIGHT, WIDTH, 3), np.uint8)
    path = write(tmp_path / "clip.mp4", noise)
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux() if packet.size)
    content, half = bytearray(path.read_bytes()), packet.size // 2
    content[packet.pos + half : packet.pos + packet.size] = bytes(packet.size - half)
    path.write_bytes(content)
    frames, video = read(path)
    assert len(frames) == 11
    assert video.loss is not None
    assert video.loss.startswith(f"only 11 of 12 frames of {path} could be read")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi", "ts", "mpg", "wmv"])
def test_random_damage_never_ends_in_another_error(tmp_path: Path, suffix: str) -> None:
    content = np.frombuffer(write(tmp_path / f"clip.{suffix}", grays(8)).read_bytes(), np.uint8)
    random, path = np.random.default_rng(0), tmp_path / f"damaged.{suffix}"
    for _ in range(40):
        damaged = content.copy()
        places = random.integers(0, len(content), 12)
        damaged[places] = random.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        with suppress(ArtifactError):
            for frame in read(path)[0]:
                assert frame.image().ndim == 3


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_a_video_without_frames_says_so(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"none.{suffix}", [], "mpeg4")
    if suffix == "mkv":
        with pytest.raises(ArtifactError, match=r"cannot open .*none\.mkv as a video"):
            open_video(path)
        return
    frames, video = read(path)
    assert frames == []
    assert video.loss is not None
    assert "has no frame that can be read" in video.loss


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not a video", "cannot open"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/clip.ts\n#EXT-X-ENDLIST\n", "cannot open"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        open_video(tmp_path / "clip.mp4")
    with pytest.raises(ArtifactError, match="no video at"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(ArtifactError, match="no video at"):
        open_video(tmp_path)


@pytest.mark.parametrize("name", ["a:b.mp4", "http:x.mp4", "pipe:1.mp4", "-x.mp4", "a%03d.mp4", "ü ö.mp4", b"\xff.mp4"])
def test_a_name_is_only_a_name(tmp_path: Path, name: str | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "clip.mp4", grays(2)).rename(os.fsdecode(name))
    assert len(read(Path(os.fsdecode(name)))[0]) == 2


def test_a_camera_that_stops_says_so() -> None:
    """FFmpeg's test picture in the place of a device."""
    container = av.open("testsrc=duration=0.2:rate=25:size=64x48", format="lavfi")
    with Video(container, "webcam:0", live=True, threads=1) as video:
        frames = list(video.frames())
    assert [frame.image().shape for frame in frames] == [(48, 64, 3)] * 5
    assert video.loss == "the camera of webcam:0 stopped after 5 frames (no more came)."
    with pytest.raises(ArtifactError, match="cannot open the camera of 'webcam:77'"):
        open_camera(77)


def test_enormous_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "clip.mp4", grays(2))
    monkeypatch.setattr(reader, "PIXELS_MAX", WIDTH * HEIGHT - 1)
    with pytest.raises(ArtifactError, match="64x48 pixels"):
        open_video(path)
