"""Uploads: what is too large or too slow is refused, and what is silent gives way when there are too many."""

import asyncio
from collections.abc import Sequence

import pytest
from starlette.requests import ClientDisconnect, Request

from leanface.serving.refusals import Refused
from leanface.serving.uploads import Uploads


class Sender:
    """A client that sends parts when told to."""

    def __init__(self, length: int | None = None) -> None:
        self._parts: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        headers = [] if length is None else [(b"content-length", b"%d" % length)]
        self.request = Request({"type": "http", "method": "POST", "headers": headers}, self._parts.get)

    def send(self, *parts: bytes, end: bool = False) -> None:
        for part in parts:
            self._parts.put_nowait({"type": "http.request", "body": part, "more_body": True})
        if end:
            self._parts.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def vanish(self) -> None:
        self._parts.put_nowait({"type": "http.disconnect"})


def read(parts: Sequence[bytes], length: int | None = None, bytes_max: int = 10) -> bytes:
    async def main() -> bytes:
        sender = Sender(length)
        sender.send(*parts, end=True)
        return await Uploads(bytes_max, 60.0).read(sender.request)

    return asyncio.run(main())


def test_parts_are_put_together() -> None:
    assert read([b"12345", b"", b"67890"]) == b"1234567890"


@pytest.mark.parametrize(
    ("parts", "length", "kind"),
    [
        ([], None, "not_a_photo"),
        ([b""], 0, "not_a_photo"),
        ([b"123456", b"78901"], None, "too_large"),
        ([], 11, "too_large"),
    ],
)
def test_what_is_empty_or_too_large_is_refused(parts: list[bytes], length: int | None, kind: str) -> None:
    with pytest.raises(Refused) as refused:
        read(parts, length)
    assert refused.value.kind == kind


def test_what_is_too_slow_is_refused() -> None:
    async def main() -> None:
        sender = Sender()
        sender.send(b"half")
        await Uploads(10, 0.01).read(sender.request)

    with pytest.raises(Refused, match=r"within 0\.01 s"):
        asyncio.run(main())


def test_a_client_that_has_gone_is_not_waited_for() -> None:
    async def main() -> None:
        sender = Sender()
        sender.send(b"half")
        sender.vanish()
        await Uploads(10, 60.0).read(sender.request)

    with pytest.raises(ClientDisconnect):
        asyncio.run(main())


def test_the_upload_that_was_silent_the_longest_gives_way() -> None:
    async def main() -> list[object]:
        uploads = Uploads(bytes_max=10, seconds=60.0, held_max=12)
        senders = [Sender() for _ in range(3)]
        pending = [asyncio.create_task(uploads.read(sender.request)) for sender in senders]
        senders[0].send(b"0000")
        await asyncio.sleep(0)
        senders[1].send(b"1111")
        await asyncio.sleep(0)
        senders[2].send(b"2222")
        await asyncio.sleep(0)
        senders[0].send(b"00", end=True)  # 14 bytes are more than 12: the second was silent the longest
        await asyncio.sleep(0.01)
        senders[2].send(b"22", end=True)
        return await asyncio.gather(*pending, return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert (first, third) == (b"000000", b"222222")
    assert isinstance(second, Refused)
    assert second.kind == "slow_upload"


def test_one_upload_alone_never_gives_way() -> None:
    async def main() -> bytes:
        sender = Sender()
        sender.send(b"12345", b"67890", end=True)
        return await Uploads(bytes_max=10, seconds=60.0, held_max=5).read(sender.request)

    assert asyncio.run(main()) == b"1234567890"
