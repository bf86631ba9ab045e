"""The example of a network of one's own, as a user runs it; and what is said of a task's file that does not work."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from leanface import bundle
from leanface.errors import ArtifactError, ConfigError
from leanface.task import network_of

EXAMPLE = Path(__file__).parents[2] / "examples/own_network/gratings.py"


def test_the_example_keeps_its_accuracy_and_its_bundle_fits_its_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(shutil.copy(EXAMPLE, tmp_path))
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("gratings", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.main()
    assert found["teacher"] > 0.95
    assert found["re-fitted"] > found["pruned"]
    assert found["int8"] > 0.95
    assert (module.OUT / "int8.onnx").is_file()

    file.write_text(file.read_text() + "# another network\n")
    with pytest.raises(ArtifactError, match=r"gratings\.py has changed since"):
        bundle.load_bundle(module.OUT / "int8")


@pytest.mark.parametrize(
    ("task", "source", "says"),
    [
        ("own.py:Own", "class Own:\n    outputs =\n", r"own\.py, line 2: SyntaxError"),
        ("own.py:Own", "import torch\n\n\nx = torch.no_such_thing\n", r"own\.py, line 4: AttributeError"),
        ("own.py:Owned", "class Own: ...\n", r"own\.py has no class Owned\. Did you mean Own\?"),
        ("other.py:Own", "", r"other\.py cannot be read \(No such file"),
        ("faec", "", r"no task 'faec'\. Did you mean face\? Use face, or path/to/my_task\.py:MyTask"),
    ],
)
def test_a_task_that_cannot_be_had_is_named(
    task: str, source: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(source)
    with pytest.raises(ConfigError, match=says):
        network_of(task)
