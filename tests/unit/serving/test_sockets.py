"""Servers take their address first, and say what is wrong with it."""

import urllib.request

import pytest

from leanface.cli import main
from leanface.errors import BackendError
from leanface.serving.sockets import listen, url


def test_an_address_is_taken_once() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BackendError, match=f"cannot listen on http://127.0.0.1:{port} .*in use.*--port"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()


def test_another_machines_address_is_refused() -> None:
    with pytest.raises(BackendError, match=r"cannot listen on http://192\.0\.2\.1:8000"):  # reserved for documentation
        listen("192.0.2.1", 8000)


def test_urls_are_such_that_browsers_take_them() -> None:
    assert url("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert urllib.request.Request(url("::1", 8000)).host == "[::1]:8000"


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_servers_refuse_it_before_they_load_anything(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        assert main([command, "--port", str(taken.getsockname()[1])]) == 1
    assert "in use" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([command, "--port", "65536"])
    assert "expected 1 to 65535" in capsys.readouterr().err
