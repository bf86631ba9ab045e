"""Settings of the service: what is out of range is refused before anything starts, and secrets are not repeated."""

import pynvml
import pytest

from leanface.cli import main
from leanface.device import VISIBLE
from leanface.errors import ConfigError
from leanface.serving.settings import API_KEY, Gpu, Settings

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


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver answers, and where the second of four GPUs is someone else's."""
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setenv(VISIBLE, "3,0, GPU-2b,-1,1")


@pytest.mark.usefixtures("three_gpus")
def test_gpus_are_those_that_the_service_may_use() -> None:
    every = (Gpu(0, "3"), Gpu(1, "0"), Gpu(2, "GPU-2b"))
    assert Settings.given({"devices": "all"}).devices == every
    assert Settings.given({"devices": "2,0"}).devices == (every[2], every[0])


@pytest.mark.usefixtures("three_gpus")
def test_each_gpu_has_as_many_workers() -> None:
    settings = Settings.given({"devices": "0,2", "workers": 2})
    assert [gpu and gpu.number for gpu in settings.places] == [0, 2, 0, 2]
    assert settings.network_runtime == "gpu"
    assert Settings.given({"devices": "0", "runtime": "tensorrt"}).network_runtime == "tensorrt"


def test_without_devices_workers_take_what_the_runtime_takes() -> None:
    settings = Settings(workers=3)
    assert settings.places == (None, None, None)
    assert settings.network_runtime == "auto"


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("devices", "runtime", "reason"),
    [
        ("", "auto", 'expected "all" or numbers'),
        ("0;1", "auto", 'expected "all" or numbers'),
        ("-1", "auto", 'expected "all" or numbers'),
        ("cuda:0", "auto", 'expected "all" or numbers'),
        ("1,1", "auto", "a GPU is listed twice"),
        ("1,3", "auto", "there is no GPU 3; those here are numbered 0 to 2"),
        ("all", "cpu", "--runtime cpu runs on the processor"),
        ("0", "openvino", "--runtime openvino runs on the processor"),
    ],
)
def test_devices_that_cannot_be_are_refused(devices: str, runtime: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"--devices: {reason}"):
        Settings.given({"devices": devices, "runtime": runtime})


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", " -1,0"])
def test_devices_without_a_gpu_are_refused(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv(VISIBLE, visible)
    with pytest.raises(ConfigError, match="--devices: there is no NVIDIA GPU here"):
        Settings.given({"devices": "all"})


@pytest.mark.parametrize("given", [{"p99_ms": 100.0}, {"better_model": "better.onnx"}])
def test_a_better_network_needs_a_budget(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--p99-ms: give it with --better-model, or neither"):
        Settings.given(given)
