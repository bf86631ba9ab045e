"""60 trees of photos with awkward names, reconstructed twice: nothing changed, nothing missing, nothing done twice."""

import hashlib
import json
import os
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from leanface.errors import ArtifactError
from leanface.files import MARK, marked_files
from leanface.reconstruction.flow import Outcome, reconstruct_all
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.outputs import RECORD, Settings
from leanface.reconstruction.sources import find_sources
from tests.unit.reconstruction.conftest import photo

TREES = 60

STEMS = [
    *("a", "A", "a-1", "a-2", "a_2", "a_jpg", "a.b", "a.jpg", "b", "me", "ME", "venv", "clip", "000000", "1"),
    *(
        ".",
        "..",
        "...",
        "-",
        "--out",
        "~",
        "*",
        "**",
        "best**",
        "a[1]",
        "[a]",
        "?",
        "{x}",
        "$HOME",
        "a b",
        " a",
        "a ",
        "a.",
    ),
    *(
        "é",
        "e\u0301",
        "É",
        "ß",
        "ss",
        "SS",
        "\u212b",
        "\xc5",
        "\u1e9e",
        "ﬁ",
        "İ",
        "人",
        "👩‍🚀",
        "\udce9",
        "a\nb",
        "a\tb",
        "a'b",
        'a"b',
    ),
    *("face_1", "overlay", "reconstruction", "comparison", "NUL", "x" * 250, "x" * 251, "x" * 249 + "y", "é" * 125),
]
SUFFIXES = [".jpg", ".JPG", ".png", ".jpeg", ".ppm"]
FOLDERS = ["a", "A", "me", "a.jpg", "x", "é", "e\u0301", "a b", "[a]", "**", "face_1.glb", "out", "\udce9"]
HIDDEN = [".thumbnails", ".Trash-1000", "@eaDir", "__MACOSX", ".leanface-mine"]


def new_file(draw: random.Random, folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    if len(os.fsencode(name)) <= 255 and not os.path.lexists(path):
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))  # names, sizes and times say nothing about the content


def plant(draw: random.Random, root: Path) -> None:
    """Make up a tree of photos, with other files, links and hidden folders among them."""
    folders = [root]
    for _ in range(draw.randint(0, 3)):
        folder = draw.choice(folders) / draw.choice(FOLDERS)
        if not os.path.lexists(folder):
            folder.mkdir()
            folders.append(folder)
    for number in range(draw.randint(1, 9)):
        new_file(
            draw, draw.choice(folders), draw.choice(STEMS) + draw.choice(SUFFIXES), photo(draw.getrandbits(40) + number)
        )
    for _ in range(draw.randint(0, 2)):
        new_file(
            draw, draw.choice(folders), draw.choice(["notes.txt", ".notes", "a", "me", RECORD, "face_1.glb"]), b"mine"
        )
    if draw.random() < 0.3:
        hidden = draw.choice(folders) / draw.choice(HIDDEN)
        hidden.mkdir()
        new_file(draw, hidden, "hidden.jpg", photo(1))
    if draw.random() < 0.3:
        places = [draw.choice(folders), root.parent / "elsewhere", Path("nowhere"), Path(draw.choice(STEMS) + ".jpg")]
        link = draw.choice(folders) / draw.choice(["loop", "a", "me", "z.jpg"])
        if not os.path.lexists(link):
            link.symlink_to(draw.choice(places))
    (root.parent / "elsewhere").mkdir()
    new_file(draw, root.parent / "elsewhere", "linked.jpg", photo(2))


def state(folder: Path) -> dict[str, Any]:
    """Everything below a folder: contents and times of files, where links lead, and what is a folder."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = path.readlink()
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
    return found


def visible_photos(root: Path) -> list[str]:
    """The sha256 of every photo that should be read, found in another way than the product does."""
    real: dict[str, str] = {}
    for folder, names, files in os.walk(root, followlinks=True):
        names[:] = [name for name in names if not name.startswith(".") and name not in HIDDEN]
        if len(Path(folder).relative_to(root).parts) > 12:  # by then a loop was gone round
            names.clear()
        for name in files:
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES and path.is_file():
                # A photo in a folder that links lead to is read once; one that has a link of its own, under both names.
                real[str(path.parent.resolve() / name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sorted(real.values())


def run(quick_face: LeanFace, root: Path, out: Path) -> list[Outcome]:
    settings = Settings(mesh=None, texture_px=0, pictures=False)
    return list(reconstruct_all(quick_face, find_sources([str(root)]), out, settings))


def results(out: Path) -> dict[str, str]:
    """The photo's sha256 by the folder of each result."""
    return {
        str(mark.parent): json.loads((mark.parent / RECORD).read_text())["photo_sha256"]
        for mark in out.rglob(MARK)
        if RECORD in marked_files(mark.parent)
    }


@pytest.mark.parametrize("seed", range(0, TREES, 20))
def test_whatever_photos_are_called(quick_face: LeanFace, tmp_path: Path, seed: int) -> None:
    for number in range(seed, seed + 20):
        draw = random.Random(number)
        home = tmp_path / str(number)
        root = home / "photos"
        root.mkdir(parents=True)
        plant(draw, root)
        out = draw.choice([root, root / "out", home / "faces"])
        mine, photos = state(home), visible_photos(root)
        if not photos:
            with pytest.raises(ArtifactError):
                run(quick_face, root, out)
            assert state(home) == mine, f"tree {number}"
            continue

        first = run(quick_face, root, out)
        refused = [outcome for outcome in first if outcome.error is not None]
        assert all("LeanFace did not make" in outcome.error for outcome in refused), f"tree {number}: {refused}"
        done = results(out)
        shas = sorted(done.values())
        assert len(first) == len(photos), f"tree {number}"
        assert len(shas) == len(photos) - len(refused), f"tree {number}: a result is missing, or within another"
        assert len(set(shas)) == len({*photos} & {*shas}), f"tree {number}"
        places = [Path(place) for place in done]
        assert len({unicodedata.normalize("NFC", place).casefold() for place in done}) == len(done), f"tree {number}"
        assert not any(place in other.parents for place in places for other in places), f"tree {number}"
        after = state(home)
        folders = {name for name, content in mine.items() if content == "folder"}
        assert {name: after[name] for name in mine} == mine, f"tree {number}: something of the user's has changed"
        assert not [name for name in after if ".leanface-unfinished-" in name], f"tree {number}"
        assert folders <= {name for name, content in after.items() if content == "folder"}

        second = run(quick_face, root, out)
        assert [outcome.name for outcome in second] == [outcome.name for outcome in first], f"tree {number}"
        assert all(outcome.skipped or outcome.error for outcome in second), f"tree {number}: done twice"
        assert state(home) == after, f"tree {number}: the second run changed something"
