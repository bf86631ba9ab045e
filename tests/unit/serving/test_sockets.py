"""Servers take their address first, and say what is wrong with it."""

import socket
import urllib.request

import pytest

from leanface.cli import main
from leanface.errors import BackendError
from leanface.serving.server import is_local, listen, url


def test_an_address_is_taken_once() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BackendError, match=f"cannot listen on http://127.0.0.1:{port} .*in use.*--port"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()


def test_another_machines_address_is_refused() -> None:
    with pytest.raises(BackendError, match=r"cannot listen on http://192\.0\.2\.1:8000"):  # reserved for documentation
        listen("192.0.2.1", 8000)


@pytest.mark.parametrize(
    ("host", "reason"),
    [("no-such-host.invalid", "Name|name"), ("", ""), ("a" * 64, "not a host name"), ("..", "not a host name")],
)
def test_what_is_no_address_is_refused(host: str, reason: str) -> None:
    with pytest.raises(BackendError, match=rf"cannot listen on .*{reason}.*--host"):
        listen(host, 8000)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize(("host", "local"), [("::1", True), ("[::1]", True), ("::", False)])
def test_an_ipv6_address_is_listened_on(host: str, local: bool) -> None:
    with listen(host, 0) as listening:
        port = listening.getsockname()[1]
        assert is_local(listening) is local
        reached = ["::1"] if local else ["::1", "127.0.0.1"]
        for address in reached:
            socket.create_connection((address, port), timeout=10).close()


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])
def test_it_is_known_who_can_reach_an_address(host: str, local: bool) -> None:
    with listen(host, 0) as listening:
        assert is_local(listening) is local


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


def test_the_body_of_an_answer_does_not_wait_for_the_head_s_acknowledgment() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
