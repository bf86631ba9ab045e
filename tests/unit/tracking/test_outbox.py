"""What waits for MLflow stays what it was, and one bad record holds up no other. No MLflow is needed for this."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from leanface.errors import ArtifactError
from leanface.tracking import outbox
from leanface.tracking.outbox import RefusedError
from leanface.tracking.record import Record, find_files, read_record

Sent = list[tuple[str, list[str]]]


def record(name: str, files: list[Path] | None = None, started: int = 1) -> Record:
    found, missing = find_files(files or [], Path.cwd())
    return Record(name, {}, {}, started, files=found, missing=missing)


@pytest.fixture
def sent(project: Path) -> Sent:
    return []


@pytest.fixture
def send(sent: Sent, tmp_path: Path) -> Callable[[Record], None]:
    """Notes each run with the contents of its files, "gone" for those that are."""

    def take(record: Record) -> None:
        if record.name == "refused":
            raise RefusedError("no such thing")
        if record.name == "trouble":
            raise ValueError("what nobody foresaw")
        target = tmp_path / "taken"
        contents = [target.read_text() if outbox.fetch(file, target) else "gone" for file in record.files]
        sent.append((record.name, [*contents, *record.missing]))

    return take


def deliver(send: Callable[[Record], None], reachable: bool = True) -> outbox.Delivery:
    return outbox.deliver(send, lambda: reachable, patience_s=0.0)


def kept() -> list[Path]:
    return list(Path(".cache").glob("mlflow-files/*"))


def test_files_are_delivered_as_they_were_when_the_run_was_recorded(project: Path, send, sent: Sent) -> None:
    page, figures = project / "report.md", project / "figures"
    page.write_text("of the first")
    figures.mkdir()
    (figures / "a.png").write_text("first picture")
    outbox.post(record("first", [page, figures]))
    page.write_text("of the second")
    shutil.rmtree(figures)
    figures.write_text("a file by now")
    outbox.post(record("second", [page], started=2))
    page.unlink()
    assert deliver(send).delivered == 2
    assert sent == [("first", ["of the first", "first picture"]), ("second", ["of the second"])]
    assert kept() == []


def test_what_is_gone_is_said_and_never_replaced_by_what_lies_there_now(project: Path, send, sent: Sent) -> None:
    page = project / "report.md"
    page.write_text("of the first")
    outbox.post(record("first", [page, project / "never_there.md"]))
    shutil.rmtree(project / ".cache/mlflow-files")
    page.write_text("of another run")
    deliver(send)
    assert sent == [("first", ["gone", "never_there.md"])]


def test_without_a_copy_the_file_itself_will_do_if_it_is_unchanged(project: Path, send, sent: Sent) -> None:
    page = project / "report.md"
    page.write_text("of the first")
    outbox.post(record("first", [page]))
    shutil.rmtree(project / ".cache/mlflow-files")
    deliver(send)
    assert sent == [("first", ["of the first"])]


def test_a_damaged_copy_is_not_delivered(project: Path, send, sent: Sent) -> None:
    page = project / "report.md"
    page.write_text("of the first")
    outbox.post(record("first", [page]))
    page.unlink()
    (copy,) = kept()
    copy.write_text("of the fir")
    deliver(send)
    assert sent == [("first", ["gone"])]


def test_a_copy_stays_as_long_as_another_record_means_it(project: Path, send, sent: Sent) -> None:
    page = project / "report.md"
    page.write_text("of both")
    outbox.post(record("first", [page]))
    outbox.post(record("trouble", [page], started=2))
    page.unlink()
    assert deliver(send).delivered == 1
    assert len(kept()) == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"name": "cut',
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"{}",
        b'{"name": 7, "params": {}, "tags": {}, "started": 1}',
        b'{"name": "x", "params": {}, "tags": {}, "started": 1, "version": 2, "metrics": [["loss", "high", 1, 0]]}',
        b'{"name": "x", "params": {}, "tags": {}, "started": 1, "version": "two", "files": 3}',
    ],
)
def test_a_damaged_record_is_named_once_and_set_aside(
    project: Path, send, sent: Sent, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.post(record("first", started=1))
    outbox.post(record("last", started=3))
    (outbox.outbox() / "2-damaged.json").write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        done = deliver(send)
    assert [name for name, _ in sent] == ["first", "last"]
    assert len(done.aside) == 1
    assert caplog.text.count("2-damaged cannot be delivered") == 1
    assert (project / ".cache/mlflow-set-aside/2-damaged.json").read_bytes() == damage, "nothing is thrown away"
    assert deliver(send) == outbox.Delivery()


def test_a_record_that_mlflow_refuses_is_set_aside_and_others_go_on(project: Path, send, sent: Sent) -> None:
    for started, name in enumerate(("first", "refused", "last")):
        outbox.post(record(name, started=started))
    done = deliver(send)
    assert [name for name, _ in sent] == ["first", "last"]
    assert len(done.aside) == 1
    assert "no such thing" in done.aside[0]
    assert not outbox.holds_any()


def test_a_record_in_trouble_waits_and_others_go_on(project: Path, send, sent: Sent) -> None:
    for started, name in enumerate(("first", "trouble", "last")):
        outbox.post(record(name, started=started))
    done = deliver(send)
    assert [name for name, _ in sent] == ["first", "last"]
    assert len(done.held) == 1
    assert "what nobody foresaw" in done.held[0]
    assert len(outbox.waiting()) == 1


def test_when_mlflow_is_out_of_reach_everything_waits(project: Path, send, sent: Sent) -> None:
    for started, name in enumerate(("trouble", "last")):
        outbox.post(record(name, started=started))
    with pytest.raises(ValueError, match="nobody foresaw"):
        deliver(send, reachable=False)
    assert sent == []
    assert len(outbox.waiting()) == 2


def test_what_a_killed_process_had_claimed_is_delivered(project: Path, send, sent: Sent) -> None:
    outbox.post(record("killed"))
    (path,) = outbox.waiting()
    path.rename(path.with_suffix(".sending"))
    assert outbox.holds_any()
    assert deliver(send).delivered == 1
    assert [name for name, _ in sent] == ["killed"]
    assert not outbox.holds_any()


def test_an_interrupted_delivery_leaves_the_record_waiting(project: Path) -> None:
    def interrupted(record: Record) -> None:
        raise KeyboardInterrupt

    outbox.post(record("first"))
    with pytest.raises(KeyboardInterrupt):
        deliver(interrupted)
    assert len(outbox.waiting()) == 1


def test_two_deliveries_at_once_send_each_record_once(project: Path, send, sent: Sent) -> None:
    def nested(record: Record) -> None:
        with pytest.raises(TimeoutError, match="another process"):
            deliver(send)
        send(record)

    outbox.post(record("first"))
    assert deliver(nested).delivered == 1
    assert [name for name, _ in sent] == ["first"]


def test_what_is_posted_during_a_delivery_is_taken_along(project: Path, send, sent: Sent) -> None:
    def posting(sending: Record) -> None:
        if sending.name == "first":
            outbox.post(record("second"))
        send(sending)

    outbox.post(record("first"))
    assert deliver(posting).delivered == 2
    assert [name for name, _ in sent] == ["first", "second"]


def test_a_record_of_a_newer_version_waits_for_a_newer_leanface(project: Path, send, sent: Sent) -> None:
    outbox.post(record("first"))
    outbox.post(record("newer", started=2))
    path = outbox.waiting()[1]
    tree = json.loads(path.read_text()) | {"version": 99, "files": "in some other form"}
    path.write_text(json.dumps(tree))
    done = deliver(send)
    assert [name for name, _ in sent] == ["first"]
    assert "its version is 99" in done.held[0]
    assert json.loads(path.read_text()) == tree


def test_a_record_of_an_older_version_is_delivered_without_its_files(project: Path, send, sent: Sent) -> None:
    """It names no digests: by now another run's files may lie there, and must not become its champion."""
    page = project / "report.md"
    page.write_text("of another run")
    tree = {"name": "old", "params": {"a": "1"}, "tags": {"gates": "passed"}, "started": 1, "ended": 2,
            "status": "FINISHED", "metrics": [["x", 1.0, 1, 0]], "artifacts": [str(page)], "model": str(page),
            "champion": True, "run_id": None, "note": None}  # fmt: skip
    outbox.outbox().mkdir(parents=True)
    path = outbox.outbox() / "1-abc.json"
    path.write_text(json.dumps(tree))
    old = read_record(path)
    assert (old.params, old.metrics, old.champion, old.model) == ({"a": "1"}, [("x", 1.0, 1, 0)], False, None)
    deliver(send)
    assert sent == [("old", ["report.md", "report.md"])]


def test_a_record_that_cannot_be_read_for_now_waits(project: Path, send, sent: Sent) -> None:
    outbox.post(record("first"))
    (outbox.outbox() / "0-folder.json").mkdir()
    done = deliver(send)
    assert [name for name, _ in sent] == ["first"]
    assert "0-folder" in done.held[0]


def test_without_locks_only_old_claims_are_leftovers(
    project: Path, send, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems have no locks: another host may be delivering what is claimed."""
    import errno
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for started, name in enumerate(("fresh", "old")):
        outbox.post(record(name, started=started))
    for path in outbox.waiting():
        path.rename(path.with_suffix(".sending"))
        if read_record(path.with_suffix(".sending")).name == "old":
            os.utime(path.with_suffix(".sending"), (0, 0))
    assert deliver(send).delivered == 1
    assert [name for name, _ in sent] == ["old"]


def test_a_record_that_cannot_be_written_is_an_error(project: Path) -> None:
    (project / ".cache").mkdir()
    (project / ".cache/mlflow-outbox").write_text("a file in the folder's place")
    with pytest.raises(ArtifactError, match="mlflow-outbox"):
        outbox.post(record("first"))
