"""Errors that clients are told about: the kinds there are, the HTTP status of each, and their JSON."""

import json
from typing import Any

STATUS: dict[str, int] = {
    "bad_request": 400,
    "not_a_photo": 400,
    "unauthorized": 401,
    "not_found": 404,
    "wrong_method": 405,
    "slow_request": 408,
    "slow_upload": 408,
    "too_large": 413,
    "bad_query": 422,
    "no_face": 422,
    "busy": 429,
    "large_headers": 431,
    "internal": 500,
    "not_ready": 503,
    "worker_died": 503,
    "time_limit": 504,
}
"""Kinds of errors, and the HTTP status of each."""

FAILURES = ("internal", "worker_died", "time_limit")
"""Kinds that are the service's fault."""

RETRY_S = 1


class Refused(Exception):
    """Answer a request with an error: `kind` is a key of `STATUS`, `detail` is for people."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        return Refused, (self.kind, self.detail)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.kind]

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that go with the status."""
        headers = {"Content-Type": "application/json"}
        if self.status in (429, 503):
            headers["Retry-After"] = str(RETRY_S)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    @property
    def body(self) -> bytes:
        """The error as JSON."""
        return json.dumps({"error": self.kind, "detail": self.detail}).encode()
