"""params.yaml is told apart into choices and values, and a wrong key says what would be right."""

from pathlib import Path

import pytest

from leanface import paths
from leanface.errors import ConfigError
from leanface.params import Params, known_keys, merge, read_params, sort_params


def write(text: str) -> None:
    paths.PARAMS.write_text(text)


def read() -> Params:
    return sort_params(read_params(paths.PARAMS), paths.CONF, str(paths.PARAMS))


@pytest.mark.usefixtures("project")
class TestReadParams:
    def test_a_word_at_a_group_is_a_choice_and_the_rest_are_values(self) -> None:
        write("scale: tiny\nteacher: trained\nprune: {importance: random, ratio: 0.25}\nseed: 3\n")
        params = read()
        assert params.choices == {"scale": "tiny", "teacher": "trained", "prune/importance": "random"}
        assert params.values == {"prune": {"ratio": 0.25}, "seed": 3}

    def test_a_mapping_at_a_group_changes_single_values(self) -> None:
        write("teacher: {source: trained, optimizer: {steps: 7}}\n")
        params = read()
        assert params.choices == {}
        assert params.values == {"teacher": {"source": "trained", "optimizer": {"steps": 7}}}

    def test_free_options_and_lists_are_values(self) -> None:
        write("prune: {importance: {options: {p: 1}}}\nbenchmark: {batches: [1, 4]}\n")
        params = read()
        assert params.values == {
            "prune": {"importance": {"options": {"p": 1}}},
            "benchmark": {"batches": [1, 4]},
        }

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("scale: huge\n", r"scale = 'huge' .* gpu, laptop, tiny"),
            ("scale: tinny\n", "Did you mean tiny"),
            ("prune: {importance: x}\n", r"prune.importance = 'x' .* magnitude, random"),
            ("scale: [tiny]\n", "names no file"),
            ("prune: {ratoi: 0.3}\n", r"unknown key prune.ratoi. Did you mean ratio"),
            ("prunes: {ratio: 0.3}\n", r"unknown key prunes. Did you mean prune"),
            ("distill: {optimizer: {stepz: 3}}\n", r"distill.optimizer.stepz. Did you mean steps"),
            ("data: {folder: {pth: x}}\n", r"data.folder.pth. Did you mean path"),
            ("- 1\n", "must be a mapping"),
            ("", "must be a mapping"),
            ("a: [\n", "line 2 is not YAML"),
            ("seed: 1\nprune: {ratio: 0.3}\nprune: {round_to: 8}\n", r"line 3 is not YAML: 'prune' is there twice"),
            ("<<<<<<< HEAD\nseed: 1\n", "line 2 is not YAML"),
        ],
    )
    def test_a_mistake_is_refused_with_what_is_valid(self, text: str, says: str) -> None:
        write(text)
        with pytest.raises(ConfigError, match=says):
            read()

    def test_what_is_no_text_is_refused_and_a_byte_order_mark_is_none_of_it(self) -> None:
        paths.PARAMS.write_bytes(b"\xff\xfeseed")
        with pytest.raises(ConfigError, match=r"not UTF-8 text .* at byte 0"):
            read()
        paths.PARAMS.write_bytes(b"\xef\xbb\xbfseed: 3\r\n")
        assert read().values == {"seed": 3}

    def test_a_missing_file_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"nowhere\.yaml is missing"):
            read_params(Path("nowhere.yaml"))


def test_every_key_is_known_by_its_dotted_name() -> None:
    assert {"seed", "prune", "prune.ratio", "prune.target.macs", "data.folder.path"} <= set(known_keys())


def test_merging_nothing_changes_nothing() -> None:
    tree = {"a": {"b": 1, "c": [1, 2]}, "d": 2}
    assert merge(tree, {}) == tree


def test_merging_replaces_leaves_only_and_leaves_its_arguments_alone() -> None:
    tree = {"a": {"b": 1, "c": [1, 2]}, "d": 2}
    changes = {"a": {"c": [3], "e": 4}}
    assert merge(tree, changes) == {"a": {"b": 1, "c": [3], "e": 4}, "d": 2}
    assert tree == {"a": {"b": 1, "c": [1, 2]}, "d": 2}
