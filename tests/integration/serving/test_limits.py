"""Clients that stall, drip and crowd: they are hung up on, and everyone else is answered meanwhile."""

import http.client
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.servers import Reply, Server, answer_on, reply_of, running

UPLOAD = b"POST /v1/reconstruct HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ["--queue-max", "1", "--batch-max", "1", "--time-limit-s", "3", "--no-drift", "--threads", "1"]
    folder = tmp_path_factory.mktemp("limits")
    with running("serve", folder, "--model", str(exported.int8), *options, ready="/readyz") as server:
        yield server


def stalled(text: bytes) -> Callable[[Server], Reply | None]:
    """Send something, and no more."""

    def stall(server: Server) -> Reply | None:
        with server.send(text) as connection:
            return answer_on(connection)

    return stall


def dripping(text: bytes) -> Callable[[Server], Reply | None]:
    """Send something, and then a byte after the other."""

    def drip(server: Server) -> Reply | None:
        done = threading.Event()

        def go_on() -> None:
            with suppress(OSError):
                while not done.wait(0.3):
                    connection.sendall(b"x")

        with server.send(text) as connection:
            threading.Thread(target=go_on, daemon=True).start()
            reply = answer_on(connection)
            done.set()
            return reply

    return drip


def after_a_request(text: bytes) -> Callable[[Server], Reply | None]:
    """Send something on a connection that has had an answer, and no more."""

    def stall(server: Server) -> Reply | None:
        with server.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert reply_of(response).status == 200
            connection.sendall(text)
            return answer_on(connection)

    return stall


def never_reading(server: Server) -> None:
    """Ask for much, take nothing, and see the connection end."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    asking = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000  # more than either side has room for
    with connection, pytest.raises(OSError, match=r"reset|Broken pipe"):
        connection.sendall(asking)


STALLS = {
    "nothing": (stalled(b""), None),
    "half a request line": (stalled(b"POST /v1/rec"), "slow_request"),
    "half a header": (stalled(UPLOAD[:-8]), "slow_request"),
    "a header that drips": (dripping(UPLOAD[:-4]), "slow_request"),
    "nothing after a request": (after_a_request(b""), None),
    "half a request after a request": (after_a_request(b"GET /he"), "slow_request"),
    "no body": (stalled(UPLOAD), "slow_upload"),
    "half a body": (stalled(UPLOAD + b"half"), "slow_upload"),
    "a body that drips": (dripping(UPLOAD), "slow_upload"),
    "answers that are not taken": (never_reading, None),
}


def test_whoever_stalls_is_hung_up_on_and_health_is_answered_meanwhile(server: Server, photo: bytes) -> None:
    """All at once, since each takes as long as its limit."""
    with ThreadPoolExecutor(len(STALLS)) as threads:
        pending = {name: threads.submit(stall, server) for name, (stall, _) in STALLS.items()}
        while not all(future.done() for future in pending.values()):
            assert server.ask("GET", "/healthz").status == 200
        for name, (_, kind) in STALLS.items():
            reply = pending[name].result()
            assert (None if reply is None else reply.error) == kind, name
            assert reply is None or reply.status == 408
    assert server.ask("POST", "/v1/reconstruct", photo).status == 200
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    "text", [b"", b"POST /v1/rec", UPLOAD + b"half"], ids=["nothing", "half a head", "half a body"]
)
def test_a_crowd_of_idle_connections_makes_room_for_the_next_one(server: Server, photo: bytes, text: bytes) -> None:
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (400, 400))  # half of them for connections
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(server.send(text))
        assert server.ask("GET", "/healthz").status == 200
        assert server.ask("POST", "/v1/reconstruct", photo).status == 200
    assert "Traceback" not in server.log.read_text()


def test_a_stopped_server_does_not_wait_for_uploads_that_stall(server: Server) -> None:
    """The last test of this server."""
    with server.send(UPLOAD + b"half") as upload, server.send(b"") as idle, server.send(b"GET /he") as begun:
        assert server.ask("GET", "/healthz").status == 200  # so that it has heard of them
        server.process.send_signal(signal.SIGTERM)
        reply = answer_on(upload)
        assert reply is not None
        assert (reply.status, reply.error) == (503, "not_ready")
        assert answer_on(idle) is None
        assert answer_on(begun) is None
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.log.read_text()
