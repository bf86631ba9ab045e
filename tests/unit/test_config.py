"""The configuration refuses what it does not understand, and stage configure keeps the last good one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from leanface import paths
from leanface.config import load_config, parse_config
from leanface.errors import ArtifactError, ConfigError
from leanface.stages import configure


@pytest.fixture(scope="module")
def composed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of the default configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("composed"))
        paths.PARAMS.write_text((root / paths.PARAMS).read_text())
        paths.CONF.symlink_to(root / paths.CONF)
        configure.run()
        return paths.CONFIG.read_text()


@pytest.fixture
def tree(project: Path, composed: str) -> dict[str, Any]:
    """The default configuration, which is in the project too."""
    paths.REPORTS.mkdir()
    paths.CONFIG.write_text(composed)
    return yaml.safe_load(composed)


def with_value(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(tree)
    section = changed
    *parents, last = key.split(".")
    for parent in parents:
        section = section[parent]
    section[last] = value
    return changed


def test_what_was_written_reads_back_the_same(tree: dict[str, Any]) -> None:
    assert load_config(paths.CONFIG) == parse_config(tree)
    assert load_config(paths.CONFIG).model_dump(mode="json") == tree


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("prune.ratio", 1.5, "0.95"),
        ("prune.ratio", -0.1, "greater than or equal to 0"),
        ("prune.ratio", "much", "number"),
        ("prune.ratio", float("nan"), "finite"),
        ("data.image_size", 100, "multiple of 16"),
        ("data.train_count", -5, "greater than or equal to 1"),
        ("data.workers", 4, "data.workers"),
        ("teacher.source", "borrowed", "pretrained"),
        ("distill.temperature", 0.0, "greater than or equal to 0.01"),
        ("distill.temperature", 1e7, "less than or equal to 1000000"),
        ("seed", 20240115123456, "less than or equal to 4294967295"),
        ("build.batch_opt", 1000, "batch_min <= batch_opt <= batch_max"),
        ("distill.warmth", 1.0, "distill.warmth"),
        ("quantize.keep_fp16", "auto", "valid tuple"),
        ("quantize.budget", {}, "a budget needs error .* latency"),
        ("quantize.budget", {"latency": 0.0}, "greater than 0"),
        ("color", "red", "color"),
        ("prune.ratoi", 0.5, r"prune.ratoi: unknown key. Did you mean ratio\?"),
        ("distil", {}, r"distil: unknown key. Did you mean distill\?"),
        ("quantize.method", "qta", r"got 'qta'\). Did you mean qat\?"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_is_allowed(
    tree: dict[str, Any], key: str, value: Any, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_config(with_value(tree, key, value), "test")
    assert key.split(".")[0] in str(caught.value)


def test_a_missing_section_is_refused(tree: dict[str, Any]) -> None:
    del tree["distill"]
    with pytest.raises(ConfigError, match="distill"):
        parse_config(tree)


def test_all_mistakes_are_named_at_once(tree: dict[str, Any]) -> None:
    wrong = with_value(with_value(tree, "prune.ratio", 2.0), "seed", -1)
    with pytest.raises(ConfigError) as caught:
        parse_config(wrong)
    assert "prune.ratio" in str(caught.value)
    assert "seed" in str(caught.value)


def test_a_section_is_immutable(tree: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse_config(tree).prune.ratio = 0.1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("text", ["", "[1", "3\n"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="leanface stage configure"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        load_config(tmp_path / "config.yaml")


def test_params_win_over_the_scale_and_the_scale_over_the_groups(project: Path) -> None:
    paths.PARAMS.write_text("scale: tiny\nteacher: trained\ndistill: {optimizer: {steps: 3}}\n")
    configure.run()
    config = load_config(paths.CONFIG)
    scale = yaml.safe_load((paths.CONF / "scale/tiny.yaml").read_text())
    of_task = yaml.safe_load((paths.CONF / "task/scale/face_tiny.yaml").read_text())
    group = yaml.safe_load((paths.CONF / "distill/terms.yaml").read_text())
    assert config.distill.optimizer.steps == 3
    assert config.distill.optimizer.batch_size == scale["distill"]["optimizer"]["batch_size"]
    assert config.distill.alpha == group["alpha"]
    assert config.teacher.source == "trained"
    assert config.teacher.optimizer.steps == of_task["teacher"]["optimizer"]["steps"]


def test_a_number_in_scientific_notation_is_a_number(project: Path) -> None:
    paths.PARAMS.write_text("distill: {optimizer: {learning_rate: 1e-4}}\n")
    configure.run()
    assert load_config(paths.CONFIG).distill.optimizer.learning_rate == 1e-4


@pytest.mark.parametrize("params", ["prune: {ratio: 1.5}\n", "scale: huge\n", "prune: {ratoi: 0.3}\n", "a: [\n"])
def test_a_refused_change_leaves_the_last_configuration(tree: dict[str, Any], params: str) -> None:
    before = paths.CONFIG.read_bytes()
    paths.PARAMS.write_text(params)
    with pytest.raises(ConfigError):
        configure.run()
    assert paths.CONFIG.read_bytes() == before
    assert [path.name for path in paths.REPORTS.iterdir()] == [paths.CONFIG.name]


def test_a_file_of_conf_that_is_not_yaml_is_named(project: Path) -> None:
    conf = project / "own"
    conf.mkdir()
    for file in paths.CONF.rglob("*.yaml"):
        target = conf / file.relative_to(paths.CONF)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.read_text())
    paths.CONF.unlink()
    conf.rename(paths.CONF)
    (paths.CONF / "distill/terms.yaml").write_text("temperature: [\n")
    with pytest.raises(ConfigError, match="does not compose"):
        configure.run()


FOLDER = {"path": "photos", "faces": "largest", "val_share": 0.1, "test_share": 0.1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teacher.source": "modelscope"}, "set data.morphable_model to modelscope"),
        ({"data.morphable_model": "mine.mat"}, "set data.morphable_model to packaged"),
        ({"teacher.source": "checkpoint"}, "needs teacher.path"),
        ({"teacher.source": "trained", "data.folder": FOLDER}, "needs labels"),
        ({"data.folder": FOLDER | {"test_share": 0.9}}, "less than or equal to 0.4"),
        ({"data.folder": FOLDER | {"depth": 2}}, "data.folder.depth"),
    ],
)
def test_choices_that_do_not_belong_together_are_refused(
    tree: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    for key, value in changes.items():
        tree = with_value(tree, key, value)
    with pytest.raises(ConfigError, match=says):
        parse_config(tree)


def test_modelscopes_teacher_brings_its_morphable_model_and_photos(project: Path) -> None:
    params = yaml.safe_load(paths.PARAMS.read_text())
    (project / "mine").mkdir()
    mine = {"teacher": "modelscope", "data": {"folder": {"path": "mine"}}}
    paths.PARAMS.write_text(yaml.safe_dump(params | mine))
    configure.run()
    data = load_config(paths.CONFIG).data
    assert (data.morphable_model, data.image_size) == ("modelscope", 224)
    assert data.folder is not None
    assert (data.folder.path, data.folder.faces) == ("mine", "largest")
