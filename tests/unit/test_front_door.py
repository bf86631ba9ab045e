"""`import leanface`: what a user of the library sees first."""

import importlib.metadata
import subprocess
import sys

import pytest

import leanface


@pytest.mark.parametrize("name", leanface.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(leanface, name) is not None
    assert name in dir(leanface)


def test_the_version_is_that_of_the_distribution() -> None:
    assert leanface.__version__ == importlib.metadata.version("leanface")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LeanFce'"):
        leanface.LeanFce  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    script = "import sys, leanface; print(*sorted({'torch', 'numpy', 'scipy', 'openvino'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
