"""`leanface serve` as its clients see it: a real process on the loopback interface, stopped by a signal in the end."""

import http.client
import io
import json
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import trimesh
from PIL import Image

from leanface.cli import main
from leanface.errors import BackendError
from tests.servers import Reply, Server, answer_on, running
from tools.studies import serving_load as load
from tools.studies.__main__ import main as studies

KEY = "correct-horse-battery"
HEADERS = {"x-api-key": KEY}
BYTES_MAX, PIXELS_MAX, QUEUE_MAX = 400_000, 1_000_000, 6


def read(server: Server, photo: bytes, query: str = "", **headers: str) -> Reply:
    return server.ask("POST", f"/v1/reconstruct{query}", photo, HEADERS | headers)


def workers(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {
        "bytes-max": BYTES_MAX,
        "pixels-max": PIXELS_MAX,
        "queue-max": QUEUE_MAX,
        "time-limit-s": 30,
        "threads": 1,
    }
    options = [text for name, value in limits.items() for text in (f"--{name}", str(value))]
    options += ["--model", str(exported.int8), "--no-drift", "--tick-s", "0.2"]
    key = {"LEANFACE_API_KEY": KEY + "\n"}  # as a file that holds it ends
    folder = tmp_path_factory.mktemp("serve")
    with running("serve", folder, *options, environment=key, ready="/readyz") as server:
        yield server


def test_faces_come_as_json_mesh_and_picture(server: Server, photo: bytes) -> None:
    reply = read(server, photo)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert len(reply.json()["faces"]) == 1
    mesh = read(server, photo, "?format=glb&texture=512")
    assert mesh.headers["content-type"] == "model/gltf-binary"
    assert len(trimesh.load(io.BytesIO(mesh.body), file_type="glb", force="mesh").faces) > 10_000
    picture = read(server, photo, "?format=png&faces=largest")
    assert Image.open(io.BytesIO(picture.body)).format == "PNG"


@pytest.mark.parametrize(
    ("body", "query", "status", "kind"),
    [
        (b"", "", 400, "not_a_photo"),
        (b"hello", "", 400, "not_a_photo"),
        (b'{"image": "x"}', "", 400, "not_a_photo"),
        (b'--x\r\nContent-Disposition: form-data; name="photo"\r\n\r\n', "", 400, "not_a_photo"),
        (bytes(BYTES_MAX + 1), "", 413, "too_large"),
        (b"hello", "?format=exe", 422, "bad_query"),
        (b"hello", "?format=", 422, "bad_query"),
        (b"hello", "?fomat=glb", 422, "bad_query"),
        (b"hello", "?Format=glb", 422, "bad_query"),
        (b"hello", "?format=json&format=glb", 422, "bad_query"),
        (b"hello", "?texture=-1", 422, "bad_query"),
    ],
)
def test_every_refusal_says_why(server: Server, body: bytes, query: str, status: int, kind: str) -> None:
    reply = read(server, body, query)
    assert (reply.status, reply.error) == (status, kind)
    assert len(reply.detail) > 10


def test_a_misspelled_parameter_is_named_with_the_right_one(server: Server, photo: bytes) -> None:
    reply = read(server, photo, "?fomat=glb")
    assert (reply.status, reply.error) == (422, "bad_query")
    assert "'fomat'; did you mean format?" in reply.detail
    assert "there are format" in server.ask("GET", "/v1/monitor?x=1", headers=HEADERS).detail


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [("GET", "/v1/nothing", 404, "not_found"), ("GET", "/v1/reconstruct", 405, "wrong_method")],
)
def test_wrong_addresses_are_refused_in_the_same_form(
    server: Server, method: str, path: str, status: int, kind: str
) -> None:
    reply = server.ask(method, path, headers=HEADERS)
    assert (reply.status, reply.error) == (status, kind)
    assert path in reply.detail


ROUTES = ("/healthz", "/readyz", "/metrics", "/v1/monitor", "/docs", "/openapi.json")


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_answers_head_options_and_a_trailing_slash(server: Server, path: str) -> None:
    plain = server.ask("GET", path, headers=HEADERS)
    head = server.ask("HEAD", path, headers=HEADERS)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == plain.headers["content-type"]
    slash = server.ask("GET", path + "/", headers=HEADERS)
    assert (slash.status, slash.headers["content-type"]) == (200, plain.headers["content-type"])
    options = server.ask("OPTIONS", path)
    assert (options.status, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    wrong = server.ask("DELETE", path)
    assert (wrong.status, wrong.error, wrong.headers["allow"]) == (405, "wrong_method", "GET, HEAD, OPTIONS")


def test_the_photos_route_answers_them_too(server: Server, photo: bytes) -> None:
    assert server.ask("POST", "/v1/reconstruct/?faces=all", photo, HEADERS).status == 200
    for method, status in (("HEAD", 405), ("OPTIONS", 204)):
        reply = server.ask(method, "/v1/reconstruct")
        assert (reply.status, reply.headers["allow"]) == (status, "OPTIONS, POST")


@pytest.mark.parametrize("path", ["/faces/readyz", "/readyz", "/faces/readyz/"])
def test_a_proxy_may_put_it_under_a_path_and_remove_that_or_not(server: Server, path: str) -> None:
    """As Traefik and nginx do."""
    forwarded = {"x-forwarded-prefix": "/faces", "x-forwarded-proto": "https"}
    assert server.ask("GET", path, headers=forwarded).status == 200
    description = server.ask("GET", "/openapi.json", headers=forwarded).json()
    assert description["servers"] == [{"url": "/faces"}]
    assert "servers" not in server.ask("GET", "/openapi.json").json()


@pytest.mark.parametrize("prefix", ["//evil.example", "https://evil.example", "/a b", '/"><script>', "/../"])
def test_what_is_no_path_prefix_is_ignored(server: Server, prefix: str) -> None:
    description = server.ask("GET", "/openapi.json", headers={"x-forwarded-prefix": prefix})
    assert "servers" not in description.json()


def test_photos_without_a_face_and_bombs_are_refused(server: Server, faceless: bytes, bomb: bytes) -> None:
    large = io.BytesIO()
    Image.new("RGB", (PIXELS_MAX // 900, 1000)).save(large, "PNG")
    assert "at most 1,000,000 are read" in read(server, large.getvalue()).detail
    assert "Warning" not in server.log.read_text()
    reply = read(server, faceless)
    assert (reply.status, reply.error) == (422, "no_face")
    assert "at least 40 pixels tall" in reply.detail
    assert "min_face" not in reply.detail.replace("-", "_"), "which clients cannot set"
    assert (read(server, bomb).status, read(server, bomb).error) == (413, "too_large")


def test_a_body_of_unknown_length_is_limited_too(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", "/v1/reconstruct")
    connection.putheader("x-api-key", KEY)
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    try:
        for _ in range(30):  # 30 MB, if it took them
            connection.send(b"%x\r\n" % 1_000_000 + bytes(1_000_000) + b"\r\n")
    except OSError:
        pass  # it does not
    assert connection.getresponse().status == 413
    connection.close()


def test_without_the_key_only_health_is_told(server: Server, photo: bytes) -> None:
    nothing: dict[str, str] = {}
    assert server.ask("POST", "/v1/reconstruct", photo, {"x-api-key": "\xe9"}).error == "unauthorized"
    for headers in (nothing, {"x-api-key": "wrong"}, {"x-api-key": KEY + "x"}, {"authorization": f"Basic {KEY}"}):
        reply = server.ask("POST", "/v1/reconstruct", photo, headers)
        assert (reply.status, reply.error) == (401, "unauthorized")
        assert reply.headers["www-authenticate"] == "Bearer"
    assert server.ask("GET", "/metrics", headers=nothing).status == 401
    assert server.ask("GET", "/v1/monitor", headers=nothing).status == 401
    assert server.ask("GET", "/healthz", headers=nothing).status == 200
    assert server.ask("GET", "/readyz", headers=nothing).json() == {"status": "ready", "workers": 1}
    assert server.ask("POST", "/v1/reconstruct", photo, {"authorization": f"Bearer {KEY}"}).status == 200


def test_other_web_pages_may_not_use_it(server: Server, photo: bytes) -> None:
    origin = {"origin": "https://example.org"}
    asked = server.ask("OPTIONS", "/v1/reconstruct", headers={**origin, "access-control-request-method": "POST"})
    assert not [name for name in asked.headers if name.startswith("access-control")]
    assert not [name for name in read(server, photo, **origin).headers if name.startswith("access-control")]


def test_the_description_names_routes_formats_and_errors(server: Server) -> None:
    content = server.ask("GET", "/openapi.json").json()
    post = content["paths"]["/v1/reconstruct"]["post"]
    assert "image/jpeg" in post["requestBody"]["content"]
    assert set(post["responses"]["200"]["content"]) == {"application/json", "model/gltf-binary", "image/png"}
    assert {"400", "401", "413", "422", "429", "503", "504"} <= set(post["responses"])
    assert post["responses"]["422"]["content"] == content["paths"]["/v1/monitor"]["get"]["responses"]["422"]["content"]


def test_the_description_to_read_needs_nothing_from_elsewhere(server: Server) -> None:
    reply = server.ask("GET", "/docs")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    page = reply.body.decode()
    assert f"http://127.0.0.1:{server.port}/v1/reconstruct?format=glb" in page
    forwarded = {"host": "x.example", "x-forwarded-prefix": "/faces", "x-forwarded-proto": "https"}
    assert "https://x.example/faces/v1/reconstruct" in server.ask("GET", "/docs", headers=forwarded).body.decode()
    for text in ("POST /v1/reconstruct", "GET /metrics", "json, glb, png", "bad_query, no_face", "image/webp"):
        assert text in page, text
    assert not re.search(r"<script|<link|src=|@import|url\(", page)


def test_hundreds_of_random_requests_never_bring_a_500(server: Server, hostile: list[bytes], photo: bytes) -> None:
    chance = random.Random(0)
    bodies = [*hostile, *(chance.randbytes(chance.randrange(3000)) for _ in range(300))]
    kinds = ("image/jpeg", "application/json", "multipart/form-data; boundary=x", "text/html; charset=latin-9", "")
    queries = ("", "?format=glb", "?format=png&faces=all", "?format=%00", "?texture=1e9", "?faces=all&faces=largest")
    for body in bodies:
        headers = {"content-type": chance.choice(kinds), "accept": chance.choice(("*/*", "text/html"))}
        reply = read(server, body, chance.choice(queries), **headers)
        assert 400 <= reply.status < 500, (reply, body[:40])
        assert reply.error
    for method, path in (("GET", "/v1/reconstruct"), ("DELETE", "/metrics"), ("GET", "/../etc/passwd"), ("PUT", "/")):
        assert server.ask(method, path).status in (404, 405)
    assert read(server, photo).status == 200


@pytest.mark.parametrize(
    ("text", "status", "kind"),
    [
        (b"\0" * 100, 400, "bad_request"),
        (b"GET\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/9.9\r\n\r\n", 404, "not_found"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "bad_request"),  # without a host
        (b"GET / HTTP/1.1\r\nx:" + b"y" * 99_999, 431, "large_headers"),
        (b"GET / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 400, "bad_request"),
    ],
)
def test_what_is_not_http_is_refused_in_the_same_form(server: Server, text: bytes, status: int, kind: str) -> None:
    with server.send(text) as connection:
        reply = answer_on(connection)
    assert reply is not None
    assert (reply.status, reply.error) == (status, kind)
    assert server.ask("GET", "/healthz").status == 200


def at_once(count: int, call: Callable[[], Reply]) -> list[Reply]:
    gate = threading.Barrier(count)

    def wait_and_call(_: int) -> Reply:
        gate.wait()
        return call()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(wait_and_call, range(count)))


def test_more_than_the_queue_holds_is_told_to_come_back(server: Server, photo: bytes) -> None:
    replies = at_once(40, lambda: read(server, photo, "?format=glb"))
    refused = [reply for reply in replies if reply.status == 429]
    assert refused
    assert {reply.status for reply in replies} == {200, 429}
    assert {reply.headers["retry-after"] for reply in refused} == {"1"}


def test_prometheus_and_the_monitor_know_what_happened(server: Server, photo: bytes) -> None:
    read(server, photo)
    text = server.ask("GET", "/metrics", headers=HEADERS).body.decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("leanface"))
    assert float(values['leanface_requests_total{outcome="ok"}']) >= 1
    for step in ("queue", "decode", "detect", "network", "encode", "total"):
        assert float(values[f'leanface_step_seconds_count{{step="{step}"}}']) >= 1
    assert float(values["leanface_batch_size_count"]) >= 1
    assert float(values['leanface_worker_memory_bytes{worker="0"}']) > 1e7
    assert values["leanface_queue_length"] == "0.0"
    assert values["leanface_workers_ready"] == "1.0"
    report = server.ask("GET", "/v1/monitor", headers=HEADERS).json()
    assert report["faces"] >= 1
    assert report["recent"]["seconds"] == 0.2
    assert server.ask("GET", "/v1/monitor?format=markdown", headers=HEADERS).body.startswith(b"# Monitoring")


def test_a_killed_worker_comes_back_and_no_request_is_lost(server: Server, photo: bytes) -> None:
    (worker,) = workers(server)
    worker.suspend()
    with ThreadPoolExecutor(4) as threads:
        pending = [threads.submit(read, server, photo) for _ in range(4)]
        time.sleep(0.5)
        worker.kill()
        assert [reply.result().status for reply in pending] == [200] * 4


def test_a_load_test_finds_out_where_it_is_saturated(server: Server, photo: bytes, tmp_path: Path) -> None:
    loads = load.measure(f"http://127.0.0.1:{server.port}", photo, [3.0, 200.0], 0.7, KEY)
    idle, swamped = loads
    assert (idle.requests, idle.refused, idle.failed) == (2, 0.0, 0.0)
    assert idle.p50_ms is not None
    assert swamped.refused > 0.1  # 429
    assert swamped.failed == 0.0
    assert swamped.answered < swamped.offered
    assert not swamped.sustained
    load.save(tmp_path, loads, {"photo": "astronaut"})
    content = json.loads((tmp_path / "load.json").read_text())
    assert content["device"]["cores"]
    assert len(content["loads"]) == 2
    assert "| 200 |" in (tmp_path / "load.md").read_text()


@pytest.mark.parametrize(
    ("content", "key", "reason"), [(None, "another", "unauthorized"), (b"hello", KEY, "not a photo")]
)
def test_a_load_test_says_why_the_service_does_not_read_its_photo(
    server: Server, photo: bytes, content: bytes | None, key: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # the loopback interface is not asked by way of it
    with pytest.raises(BackendError, match=f"does not read the photo: .*{reason}"):
        load.measure(f"http://127.0.0.1:{server.port}", content or photo, [1.0], 1.0, key)


def test_a_load_test_without_its_photo_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert studies(["load", "--photo", str(tmp_path / "no.jpg")]) == 1
    assert "no.jpg: No such file" in capsys.readouterr().err


def test_a_stopped_server_finishes_what_it_accepted(server: Server, photo: bytes) -> None:
    """The last test of this server."""
    with ThreadPoolExecutor(5) as threads:
        pending = [threads.submit(read, server, photo, "?format=glb") for _ in range(5)]
        time.sleep(0.15)
        server.process.send_signal(signal.SIGTERM)
        assert [reply.result().status for reply in pending] == [200] * 5
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log.read_text()
    with pytest.raises(OSError, match="refused"):
        server.ask("GET", "/healthz")


def test_a_network_that_is_not_there_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", str(tmp_path / "no.onnx"), "--port", "18765"]) == 1
    assert "no.onnx is missing" in capsys.readouterr().err


def test_its_threads_sleep_while_they_wait(exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with running("serve", tmp_path, "--model", str(exported.int8), "--no-drift", ready="/readyz") as server:
        (worker,) = workers(server)
        assert worker.environ()["OMP_WAIT_POLICY"] == "PASSIVE"
        assert server.stop() == 0


def test_the_better_network_reads_while_nobody_waits(exported, photo: bytes, tmp_path: Path) -> None:
    options = ["--model", str(exported.int8), "--better-model", str(exported.fp32), "--p99-ms", "60000", "--no-drift"]
    with running("serve", tmp_path, *options, ready="/readyz") as server:
        alone = server.ask("POST", "/v1/reconstruct", photo)
        crowd = at_once(8, lambda: server.ask("POST", "/v1/reconstruct?format=glb", photo))
        text = server.ask("GET", "/metrics").body.decode()
    assert alone.headers["x-leanface-network"] == alone.json()["network"]["model"] == "fp32.onnx"
    networks = [reply.headers["x-leanface-network"] for reply in [alone, *crowd]]
    assert set(networks) == {"fp32.onnx", "int8.onnx"}
    for network in set(networks):
        assert f'leanface_faces_total{{network="{network}"}} {float(networks.count(network))}' in text
