"""Run an application over HTTP so that no client can keep others from being answered.

uvicorn leaves time limits and the number of connections to a proxy in front. This is what it lacks; why it is not
another server: docs/decisions/0010-service.md.
"""

import asyncio
import contextlib
import ipaddress
import math
import signal
import socket
import sys
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from leanface.errors import BackendError
from leanface.serving.refusals import Refused

HEAD_S = 5.0
"""From a connection's start, or its last answer, until the head of a request is complete."""

CONNECTIONS_MAX = 2000
CONNECTIONS_MIN = 16
BACKLOG = 100
"""Connections that may wait to be accepted."""

ACCEPTED = 16
"""Of them, how many asyncio accepts in one turn of its loop."""

CLOSING_TURNS = 4
"""From accepting a connection until the one that makes room for it is closed."""

TAKEN_BYTES_PER_S = 1000
"""Of an answer; clients that take it more slowly are hung up on."""

TAKEN_CHECK_S = 10.0

STOP_S = 2.0
"""Once the server stops, how long an upload may go on."""


class Connection(H11Protocol):
    """An HTTP/1.1 connection with limits.

    - The head of each request has `HEAD_S`, however slowly it comes in.
    - An answer has to be taken, at `TAKEN_BYTES_PER_S` at least.
    - One connection too many closes the one that has been silent the longest, so a new client is always heard. Those
      whose request is complete are left alone.
    - Every error has the same JSON form, also of what is not HTTP.

    Bodies are limited where they are read: `leanface.serving.uploads`.
    """

    _heard: float
    _head_clock: asyncio.TimerHandle | None = None
    _taken_clock: asyncio.TimerHandle | None = None
    _stop_clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start the clock; make room if there are too many."""
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._watch_head()
        if len(self.connections) > connections_max():
            others: list[Connection] = [c for c in self.connections if isinstance(c, Connection) and not c._complete]
            if others:
                silent = min(others, key=lambda connection: connection._heard)
                silent._end(Refused("busy", "too many connections; this one was silent the longest."))

    def data_received(self, data: bytes) -> None:
        """Hear the client."""
        self._heard = self.loop.time()
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        for clock in (self._head_clock, self._taken_clock, self._stop_clock):
            if clock is not None:
                clock.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Watch whether the client takes its answer."""
        super().pause_writing()
        self._watch_taking(math.inf)

    def resume_writing(self) -> None:
        """Note that the client has taken it."""
        super().resume_writing()
        if self._taken_clock is not None:
            self._taken_clock.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or whose head is too large."""
        if getattr(sys.exception(), "error_status_hint", 400) == 431:
            self._end(Refused("large_headers", "the request's headers are too large."), asked=True)
        else:
            self._end(Refused("bad_request", "this is not a valid HTTP/1.1 request."), asked=True)

    def shutdown(self) -> None:
        """Let a complete request be answered; give an upload that is not complete `STOP_S`."""
        super().shutdown()
        if not self._complete and not self._idle:
            stopping = Refused("not_ready", "the server is stopping.")
            self._stop_clock = self.loop.call_later(STOP_S, self._stop_upload, stopping)

    @property
    def _idle(self) -> bool:
        """Whether a request's head is awaited."""
        return self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    @property
    def _complete(self) -> bool:
        """Whether all of a request is there, and its answer is not."""
        return not self._idle and not self.cycle.more_body

    def _watch_head(self) -> None:
        if self._idle and self._head_clock is None:
            self._head_clock = self.loop.call_later(HEAD_S, self._miss_head)
        elif not self._idle and self._head_clock is not None:
            self._head_clock.cancel()
            self._head_clock = None

    def _miss_head(self) -> None:
        self._end(Refused("slow_request", f"the request's headers did not arrive within {HEAD_S:g} s."))

    def _watch_taking(self, before: float) -> None:
        left = self.transport.get_write_buffer_size()
        if before - left < TAKEN_BYTES_PER_S * TAKEN_CHECK_S:
            self.transport.abort()
        else:
            self._taken_clock = self.loop.call_later(TAKEN_CHECK_S, self._watch_taking, left)

    def _stop_upload(self, refused: Refused) -> None:
        if not self._complete:
            self._end(refused)

    def _end(self, refused: Refused, asked: bool = False) -> None:
        """Hang up; say why to a client that has begun to ask, or has `asked`, and has no answer yet."""
        self.connections.discard(self)
        if self.transport.is_closing():
            return
        asked = asked or not self._idle or bool(self.conn.trailing_data[0])
        if asked and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = b"" if not self._idle and self.scope["method"] == "HEAD" else refused.body
            headers = [*refused.headers.items(), ("Content-Length", str(len(refused.body))), ("Connection", "close")]
            answer = h11.Response(status_code=refused.status, headers=headers)
            parts = (self.conn.send(event) for event in (answer, h11.Data(data=body), h11.EndOfMessage()))
            self.transport.write(b"".join(part or b"" for part in parts))
        if not self._idle:  # the application is told, too
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def connections_max() -> int:
    """Count the connections that may be open at once, so that they take at most half of the files that may be open."""
    if sys.platform == "win32":
        return CONNECTIONS_MAX
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(CONNECTIONS_MIN, min(CONNECTIONS_MAX, files // 2 - CLOSING_TURNS * ACCEPTED))


class Server(uvicorn.Server):
    """uvicorn's server; more connections may wait than are accepted at once, for which asyncio has one number."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)


def new_server(app: Any, stop_s: float) -> Server:
    """Make a server of an ASGI application.

    Args:
        stop_s: how long requests may take to finish once it stops.
    """
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        backlog=ACCEPTED,
        timeout_keep_alive=math.ceil(HEAD_S),
        timeout_graceful_shutdown=math.ceil(stop_s),
    )
    return Server(config)


def run(server: uvicorn.Server, listening: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM, then finish the requests that are complete, and return."""
    # uvicorn passes a signal on when it has stopped; what the caller still has to do, has to be done then.
    signal.signal(signal.SIGTERM, _ignore)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the server has stopped already."""


def listen(host: str, port: int) -> socket.socket:
    """Take an address; the caller closes the socket.

    Args:
        host: a name or an address. "::" listens on IPv4 too, where the system can.
        port: 0 for any free one.

    Raises:
        BackendError: the address is taken, not this machine's, not allowed, or no address at all.
    """
    host = host.removeprefix("[").removesuffix("]")  # as in a URL
    try:
        # Of a name that has several addresses the first, which browsers and curl try first, too.
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        listening = socket.create_server(address[:2], family=family, dualstack_ipv6=both)
        # Connections inherit it. asyncio sets it only where a socket names its protocol, and without it the body of an
        # answer waits 40 ms for the client to acknowledge the head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except PermissionError:
        reason, fix = "not allowed: ports below 1024 belong to the administrator", "choose a --port from 1024 on"
    except OSError as error:
        reason, fix = error.strerror or str(error), "choose another --port or --host"
    except UnicodeError:  # of a name that cannot be one
        reason, fix = "not a host name or address", "choose another --host"
    raise BackendError(f"cannot listen on {url(host, port)} ({reason}): {fix}.")


def is_local(listening: socket.socket) -> bool:
    """Tell whether a socket can be reached from this machine only."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def url(host: str, port: int) -> str:
    """Write an address as browsers take it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
