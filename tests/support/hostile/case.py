"""A hostile request as data, and functions that build its bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.installs import Install

# The status and code of a response; None if the server may close the connection without a response.
Verdict = tuple[int, str | None] | None

STORED: Verdict = (202, None)
ENDED: Verdict = None
BAD_HTTP: Verdict = (400, "bad_http")


@dataclass(frozen=True, slots=True)
class Case:
    """One request. `expected` has the allowed responses, usually one.

    After a 202, `stores` is the number of stored snapshots; `shows` and `at` are the metrics and the timestamp of the
    instance. `waits`: the server waits for more data until the client closes the connection for sending.
    """

    name: str
    raw: Callable[[Install], bytes]
    expected: tuple[Verdict, ...]
    stores: int = 1
    shows: Any = None
    at: datetime | None = None
    waits: bool = False


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A complete POST request in the usual form."""
    lines = [f"POST {path} HTTP/1.1", "Host: shm.test", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin1") + body


def signed(path: str, install: Install, body: bytes, **headers: str) -> bytes:
    """A complete POST request with a signed body. `headers` are added or replaced (`X_Signature` is `X-Signature`)."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return post(path, body, install.signed(body) | changed)


def snapshot(install: Install, metrics: bytes, at: bytes | None = None, more: bytes = b"") -> bytes:
    """A complete signed snapshot. `metrics`, `at` and `more` are JSON texts, which may be malformed."""
    now = b'"%s"' % datetime.now(UTC).isoformat().encode()
    body = b'{"instance_id":"%s","timestamp":%s,"metrics":%s%s}' % (
        *(install.instance_id.encode(), now if at is None else at),
        *(metrics, more),
    )
    return signed("/v1/snapshot", install, body)
