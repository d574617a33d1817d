"""Reports of a seeded fleet: signed snapshots of its installs, sent at a fixed rate by another process."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nacl.bindings

from bench.feed.sender import Load, SendResult, send
from bench.read.seeded_fleet import open_cursor
from bench.support.child_process import run_child
from bench.support.errors import InvalidRun
from bench.support.fleet import Install, make_install, snapshot_body
from bench.support.server import RunningServer

MAX_REPORTERS = 2_000  # installs that take turns: each reports every two seconds at 1,000 reports a second
CHANGED_METRICS = ("exports_done", "layers", "mail_sent", "app_uptime_h")
SEND_TIMEOUT_S = 90  # for the responses, after the last snapshot
SIGNING_S = 2.0  # the first snapshot is dated ahead by this: signing takes time. A server accepts five minutes

# The largest application's; their keys are replaced, because a seeded install has none that signs.
REPORTERS = """
SELECT instance_id::text, metrics FROM instances
WHERE app_slug = %(app)s AND status = 'active' AND elapsed_windows = 0
ORDER BY instance_id LIMIT %(limit)s
"""
REPLACE_KEYS = """
UPDATE instances SET public_key = decode(new.key, 'hex')
FROM unnest(%(ids)s::uuid[], %(keys)s::text[]) AS new (instance_id, key)
WHERE instances.instance_id = new.instance_id
"""


class Reporters:
    """Installs of one application that report in turns. Their keys in the database are replaced by known ones."""

    def __init__(self, dsn: str, app: str) -> None:
        with open_cursor(dsn) as cursor:
            cursor.execute(REPORTERS, {"app": app, "limit": MAX_REPORTERS})
            rows: list[tuple[str, dict[str, Any]]] = cursor.fetchall()
            made = [make_install() for _ in rows]
            self._installs = [
                Install(row[0], install.public, install.secret) for row, install in zip(rows, made, strict=True)
            ]
            self._metrics = [metrics for _, metrics in rows]
            keys = [install.public.hex() for install in self._installs]
            cursor.execute(REPLACE_KEYS, {"ids": [install.instance_id for install in self._installs], "keys": keys})

    def sign(self, file: Path, number: int, rate: float) -> None:
        """Signs snapshots for the next moments; each changes some metrics of the install's last one."""
        start = datetime.now(UTC) + timedelta(seconds=SIGNING_S)
        with file.open("wb") as out:
            for index in range(number):
                position = index % len(self._installs)
                install, metrics = self._installs[position], self._metrics[position]
                for key in CHANGED_METRICS:
                    metrics[key] = round(metrics[key] + 1 + index % 7, 1)
                at = start + timedelta(seconds=index / rate)
                body = snapshot_body(install.instance_id, at, {"invoices_sent": index} | metrics)
                signature = nacl.bindings.crypto_sign(body, install.secret)[: nacl.bindings.crypto_sign_BYTES]
                out.write(b"%s %s %s\n" % (install.instance_id.encode(), signature.hex().encode(), body))


@contextmanager
def sending(
    reporters: Reporters, server: RunningServer, folder: Path, rate: float, seconds: float
) -> Iterator[list[SendResult]]:
    """Sends `rate` snapshots a second for `seconds`, beside the context. The list has the result after it.

    Raises InvalidRun if a snapshot was refused.
    """
    file = folder / "reports"
    results: list[SendResult] = []
    reporters.sign(file, int(rate * seconds) + 1, rate)
    with run_child(send, Load(server.port, file, rate, seconds)) as sender:
        sender.receive(SEND_TIMEOUT_S)
        file.unlink()
        sender.send("start")
        yield results
        results.append(sender.receive(seconds + SEND_TIMEOUT_S))
    if results[0].refused:
        raise InvalidRun(f"{results[0].refused} of the reports were refused.")


def largest_application(dsn: str) -> str:
    """Its slug: the console opens it first."""
    with open_cursor(dsn) as cursor:
        cursor.execute("SELECT app_slug FROM instances GROUP BY app_slug ORDER BY count(*) DESC LIMIT 1")
        (slug,) = cursor.fetchone()
        return str(slug)


def reached_rate(result: SendResult) -> float:
    """Snapshots acknowledged a second."""
    return result.acknowledged / (result.ended_ns - result.started_ns) * 1e9
