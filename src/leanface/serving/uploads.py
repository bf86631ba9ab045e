"""Read photos that are being uploaded, so that slow and endless uploads cost little and block no one."""

import asyncio

from starlette.requests import Request

from leanface.serving.refusals import Refused

HELD_BYTES_MAX = 256 * 2**20
"""Of all unfinished uploads together."""


class Uploads:
    """Reads the bodies of requests, each of limited size and time. Belongs to one event loop.

    All unfinished uploads together are limited, too: what does not fit ends the one that has been silent the longest.
    """

    def __init__(self, bytes_max: int, seconds: float, held_max: int = HELD_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._seconds = seconds
        self._held_max = held_max
        self._held: dict[asyncio.Timeout, int] = {}  # bytes of each; the one heard from last is last

    async def read(self, request: Request) -> bytes:
        """Read a request's body.

        Raises:
            Refused: it is empty, too large or too slow.
            ClientDisconnect: the client has gone.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal():  # h11 sees to it that it is true
            self._require_small(int(declared))
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds) as clock:
                try:
                    async for part in request.stream():
                        body += part
                        self._require_small(len(body))
                        self._hold(clock, len(body))
                finally:
                    self._held.pop(clock, None)
        except TimeoutError:
            raise Refused("slow_upload", f"the photo did not arrive within {self._seconds:g} s.") from None
        if not body:
            raise Refused("not_a_photo", "the file is empty; send a photo's file as the request's body.")
        return bytes(body)

    def _require_small(self, size: int) -> None:
        if size > self._bytes_max:
            raise Refused("too_large", f"a photo's file may have {self._bytes_max:,} bytes; send a smaller one.")

    def _hold(self, clock: asyncio.Timeout, size: int) -> None:
        self._held.pop(clock, None)
        self._held[clock] = size
        while sum(self._held.values()) > self._held_max and len(self._held) > 1:
            silent = next(iter(self._held))
            del self._held[silent]
            silent.reschedule(asyncio.get_running_loop().time())
