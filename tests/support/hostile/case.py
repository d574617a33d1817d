"""A hostile request as data, and how its bytes are put together."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.installs import Install

# A status and the code of its problem; None where the server may end the connection in place of an answer.
Verdict = tuple[int, str | None] | None

STORED: Verdict = (202, None)
ENDED: Verdict = None
BAD_HTTP: Verdict = (400, "bad_http")


@dataclass(frozen=True, slots=True)
class Case:
    """One request. `expected` holds the answers that would be right, mostly one.

    Where the answer is 202, `stores` tells how many snapshots are kept, `shows` the metrics of the instance afterwards
    and `at` their instant. `waits`: the server waits for more than is sent, until the client closes its side.
    """

    name: str
    raw: Callable[[Install], bytes]
    expected: tuple[Verdict, ...]
    stores: int = 1
    shows: Any = None
    at: datetime | None = None
    waits: bool = False


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole POST as a well-behaved client writes it."""
    lines = [f"POST {path} HTTP/1.1", "Host: shm.test", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin1") + body


def signed(path: str, install: Install, body: bytes, **headers: str) -> bytes:
    """A whole POST of a body with its signature; `headers` replace or add some (`X_Signature` for `X-Signature`)."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return post(path, body, install.signed(body) | given)


def snapshot(install: Install, metrics: bytes, at: bytes | None = None, more: bytes = b"") -> bytes:
    """A whole signed snapshot. Metrics, timestamp and what follows them are JSON texts, well-formed or not."""
    now = b'"%s"' % datetime.now(UTC).isoformat().encode()
    body = b'{"instance_id":"%s","timestamp":%s,"metrics":%s%s}' % (
        *(install.instance_id.encode(), now if at is None else at),
        *(metrics, more),
    )
    return signed("/v1/snapshot", install, body)
