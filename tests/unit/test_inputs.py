"""A network, a morphable model or photos that were replaced on disk change the configuration, so DVC runs again."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanface import paths
from leanface.config import load_config
from leanface.errors import ConfigError
from leanface.inputs import locate
from leanface.stages import configure

pytestmark = pytest.mark.usefixtures("project")


def configured(changes: dict[str, Any]) -> str:
    """What reports/config.yaml holds with these changes of params.yaml."""
    params: dict[str, Any] = yaml.safe_load(paths.PARAMS.read_text())
    for key, value in changes.items():
        params[key] = (params[key] if isinstance(params.get(key), dict) else {}) | value
    paths.PARAMS.write_text(yaml.safe_dump(params))
    configure.run()
    return paths.CONFIG.read_text()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


NAMED: dict[str, tuple[dict[str, Any], str]] = {
    "a checkpoint": ({"teacher": {"source": "checkpoint", "path": "own/x.pt"}}, "own/x.pt"),
    "a bundle": ({"teacher": {"source": "checkpoint", "path": "own"}}, "own/weights.safetensors"),
    "a snapshot": ({"teacher": {"source": "checkpoint", "path": "own"}}, "own/pytorch_model.pt"),
    "a start of the teacher": ({"teacher": {"source": "trained", "start_from": "own/x.npz"}}, "own/x.npz"),
    "a start of the student": ({"distill": {"start_from": "own"}}, "own/spec.json"),
    "a morphable model": (
        {"teacher": {"source": "checkpoint", "path": "own/y"}, "data": {"morphable_model": "own/x.mat"}},
        "own/x.mat",
    ),
    "photos": (
        {"data": {"folder": {"path": "own", "faces": "all", "val_share": 0.1, "test_share": 0.1}}},
        "own/album/1.jpg",
    ),
}


@pytest.mark.parametrize("kind", NAMED)
def test_replacing_it_changes_the_configuration_and_putting_it_back_does_not(project: Path, kind: str) -> None:
    changes, file = NAMED[kind]
    write(Path("own/y"), "other")
    write(Path(file), "first")
    first = configured(changes)
    write(Path(file), "second one")
    assert configured({}) != first
    write(Path(file), "first")
    assert configured({}) == first


def test_what_is_gone_keeps_its_digest_for_its_results_may_be_in_the_cache(project: Path) -> None:
    changes, file = NAMED["a checkpoint"]
    write(Path(file), "first")
    first = configured(changes)
    Path(file).unlink()
    assert configured({}) == first


def test_what_never_was_there_is_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.path: nowhere\.pt cannot be read"):
        configured({"teacher": {"source": "checkpoint", "path": "nowhere.pt"}})
    assert not paths.CONFIG.exists()


def test_in_an_experiments_checkout_a_relative_path_is_found_in_the_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    write(home / "own/x.pt", "first")
    monkeypatch.setenv("DVC_ROOT", str(home))
    configured(NAMED["a checkpoint"][0])
    assert load_config(paths.CONFIG).teacher.path == "own/x.pt"
    assert locate("own/x.pt").read_text() == "first"
    write(Path("own/x.pt"), "the checkout's own")
    assert locate("own/x.pt").read_text() == "the checkout's own"


def test_the_default_configuration_names_no_file_of_the_users(project: Path) -> None:
    configured({})
    tree = json.dumps(load_config(paths.CONFIG).model_dump(mode="json"))
    assert tree.count("_sha256") == tree.count('_sha256": null')
