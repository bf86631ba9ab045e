"""Every YAML file in conf/ composes into a configuration that validates."""

from pathlib import Path

import pytest
import yaml

from leanface import paths
from leanface.config import Config, load_config
from leanface.pruning.importance import IMPORTANCES
from leanface.stages import configure

CONF = Path(__file__).parents[2] / "conf"
CHOICES = sorted(
    (file.parent.relative_to(CONF).as_posix(), file.stem)
    for file in CONF.rglob("*.yaml")
    if file.parent not in (CONF, CONF / "ablation", CONF / "task" / "scale") and CONF / "sweep" not in file.parents
)


OF_CLASSIFIERS = {
    ("data", "digits"),
    ("teacher", "scratch"),
    ("distill", "hinton"),
    ("evaluate", "classification"),
}
OWN = f"{CONF.parent}/examples/own_network/gratings.py:Gratings"


@pytest.fixture
def params(project: Path):
    """params.yaml as a tree, written back by calling it."""
    tree = yaml.safe_load(paths.PARAMS.read_text())
    # What the examples name.
    Path("teacher.pt").touch()
    Path("photos").mkdir()

    def choose(group: str, name: str) -> None:
        section = tree
        *parents, last = group.split("/")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = name
        paths.PARAMS.write_text(yaml.safe_dump(tree))

    return choose


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_of_every_group_is_a_valid_configuration(params, group: str, name: str) -> None:
    if group != "task":
        params("task", "digits" if (group, name) in OF_CLASSIFIERS else "face")
    params(group, OWN if name == "own" else name)
    configure.run()
    config = load_config(paths.CONFIG)
    assert set(config.model_dump()) == set(Config.model_fields)


def test_every_group_is_known_to_the_composition() -> None:
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    chosen = {key for entry in defaults if isinstance(entry, dict) for key in entry}
    assert chosen - {"optional task/scale"} == {group for group, _ in CHOICES}


def test_every_task_may_have_a_file_for_each_scale() -> None:
    known = {f"{task.stem}_{scale.stem}" for task in CONF.glob("task/*.yaml") for scale in CONF.glob("scale/*.yaml")}
    assert {file.stem for file in CONF.glob("task/scale/*.yaml")} <= known


def test_params_lists_only_choices_that_conf_has_as_its_comments_say() -> None:
    for line in (CONF.parent / "params.yaml").read_text().splitlines():
        key, _, comment = line.partition("#")
        options = [word.strip() for word in comment.split("|")]
        if len(options) > 1:
            group = CONF / key.partition(":")[0].strip()
            choices = {file.stem for file in group.glob("*.yaml")} - {"own"}  # its name is a file's
            assert set(options) == choices, line


def test_importances_have_a_file_each() -> None:
    assert {name for group, name in CHOICES if group == "prune/importance"} == set(IMPORTANCES)
