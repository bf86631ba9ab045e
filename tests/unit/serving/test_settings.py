"""Settings of the service: what is out of range is refused before anything starts, and secrets are not repeated."""

import pytest

from leanface.cli import main
from leanface.errors import ConfigError
from leanface.serving.settings import API_KEY, Settings

KEY = "0123456789abcdef"


def test_a_setting_that_is_out_of_range_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANFACE_API_KEY", "short-secret")
    assert main(["serve", "--workers", "1000"]) == 1
    message = capsys.readouterr().err
    assert "--workers: " in message
    assert "LEANFACE_API_KEY: " in message
    assert "short-secret" not in message


def key_of(value: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(API_KEY, value)
    key = Settings.given({}).api_key
    assert key is not None
    return key.get_secret_value()


def test_without_the_variable_there_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY, raising=False)
    assert Settings.given({}).api_key is None


@pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", "  {}\t", "\n{}"])
def test_white_space_around_a_key_does_not_belong_to_it(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of(around.format(KEY), monkeypatch) == KEY


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "set but empty"),
        ("  \n", "set but empty"),
        ("\r\n", "set but empty"),
        ("too-short", "16 at least"),
        ("0123456789\nabcdef", "without spaces"),
        ("0123456789 abcdef", "without spaces"),
        ("schl\u00fcssel-0123456789", "ASCII"),
        ("\udcff0123456789abcdef", "ASCII"),  # bytes that are not UTF-8
        ("\N{ZERO WIDTH SPACE}0123456789abcdef", "ASCII"),
    ],
)
def test_a_key_that_no_client_could_send_is_refused(value: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        key_of(value, monkeypatch)
    assert API_KEY in str(refused.value)
    assert "0123456789" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_key_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY, KEY)
    settings = Settings.given({})
    assert KEY not in f"{settings!r} {settings} {settings.model_dump(mode='json')}"


@pytest.mark.parametrize(
    ("path", "prefix"), [("", ""), ("/", ""), ("/faces", "/faces"), ("/faces/", "/faces"), ("/a/b-c", "/a/b-c")]
)
def test_a_path_prefix_is_kept_without_its_last_slash(path: str, prefix: str) -> None:
    assert Settings(root_path=path).root_path == prefix


@pytest.mark.parametrize("path", ["faces", "//faces", "https://faces", "/a b", "/a?b"])
def test_what_is_no_path_prefix_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="--root-path: expected a path"):
        Settings.given({"root_path": path})
