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
    if file.parent not in (CONF, CONF / "ablation") and CONF / "sweep" not in file.parents
)


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
    params(group, name)
    configure.run()
    config = load_config(paths.CONFIG)
    assert set(config.model_dump()) == set(Config.model_fields)


def test_every_group_is_known_to_the_composition() -> None:
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    chosen = {key for entry in defaults if isinstance(entry, dict) for key in entry}
    assert chosen == {group for group, _ in CHOICES}


def test_params_lists_only_choices_that_conf_has_as_its_comments_say() -> None:
    for line in (CONF.parent / "params.yaml").read_text().splitlines():
        key, _, comment = line.partition("#")
        options = [word.strip() for word in comment.split("|")]
        if len(options) > 1:
            group = CONF / key.partition(":")[0].strip()
            assert set(options) == {file.stem for file in group.glob("*.yaml")}, line


def test_importances_have_a_file_each() -> None:
    assert {name for group, name in CHOICES if group == "prune/importance"} == set(IMPORTANCES)
