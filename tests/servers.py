"""Start LeanFace's servers as users do, and talk to them as clients do."""

import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

START_S = 120.0


@contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Run an S3-compatible server on this machine with an empty bucket, and yield its URL; the environment names it."""
    server = pytest.importorskip("moto.server", reason="moto is not installed: `pip install 'moto[server]'`")
    import boto3

    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        try:
            boto3.client("s3").create_bucket(Bucket=bucket)
            yield f"http://{host}:{port}"
        finally:
            running.stop()


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The kind of an error, which has to have the form that all errors have."""
        content = self.json()
        assert set(content) == {"error", "detail"}, content
        assert self.headers["content-type"] == "application/json"
        assert " at 0x" not in content["detail"], "an object's address"
        return content["error"]

    @property
    def detail(self) -> str:
        assert self.error
        return self.json()["detail"]


class Server(NamedTuple):
    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            return reply_of(connection.getresponse())
        finally:
            connection.close()

    def send(self, text: bytes) -> socket.socket:
        """Open a connection and send something; the caller closes it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(text)
        return connection

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def reply_of(response: http.client.HTTPResponse) -> Reply:
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def answer_on(connection: socket.socket) -> Reply | None:
    """What a server sends on a connection by itself; None if it hangs up without a word."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return reply_of(response)
    except (http.client.BadStatusLine, ConnectionResetError):
        return None


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def running(
    command: str, folder: Path, *options: str, environment: Mapping[str, str] | None = None, ready: str = "/healthz"
) -> Iterator[Server]:
    """Run `leanface COMMAND OPTIONS` on a free port in a folder, from when `ready` is answered with 200."""
    port = free_port()
    log = folder / f"{command}.log"
    line = [sys.executable, "-m", "leanface", command, "--port", str(port), *options]
    own = {name: value for name, value in os.environ.items() if name != "LEANFACE_API_KEY"} | dict(environment or {})
    with log.open("w") as output:
        process = subprocess.Popen(line, cwd=folder, env=own, stdout=output, stderr=output)
    server = Server(process, port, log)
    try:
        end = time.monotonic() + START_S
        while not _answers(server, ready):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()


def _answers(server: Server, path: str) -> bool:
    try:
        return server.ask("GET", path).status == 200
    except OSError:
        return False


@contextmanager
def behind_proxy(server: Server, prefix: str) -> Iterator[str]:
    """Offer a server under a path prefix, and yield its URL.

    The proxy removes the prefix and says nothing about it, as nginx's `proxy_pass http://server/;` does.
    """

    class Proxy(http.server.BaseHTTPRequestHandler):
        def forward(self) -> None:
            path = self.path.removeprefix(prefix)
            if path == self.path:
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            reply = server.ask(self.command, "/" + path.lstrip("/"), body)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_HEAD = do_POST = forward

        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}{prefix}"
        proxy.shutdown()
