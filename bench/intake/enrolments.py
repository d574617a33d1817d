"""Enrolments: unsigned registrations and signed activations of new installs, as the official clients send them."""

import asyncio
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import nacl.bindings

from bench.intake.wrk import run_wrk, thread_count
from bench.support.errors import InvalidRun
from bench.support.fleet import Install, SignedRequests, make_install
from bench.support.server import RunningServer

ACTIVATION = b'{"action":"activate"}'
UNSIGNED = b"-" * (2 * nacl.bindings.crypto_sign_BYTES)
SIGNING_MARGIN = 1.5  # requests signed for each expected one
# An install activates this many registrations after its own, for each connection: by then it has been answered.
ACTIVATION_LAG = 4
RESPONSE_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class EnrolmentRun:
    """Enrolments a second, each of two requests, and the waits of requests."""

    rate: float
    p50_ms: float
    p99_ms: float


_numbers = count()


def measure_enrolments(
    server: RunningServer, folder: Path, connections: int, seconds: int, expected_rate: float
) -> EnrolmentRun:
    """Enrols new installs for that long. Raises InvalidRun unless the database has all that were activated."""
    path = folder / f"enrolments{next(_numbers)}"
    requests = _sign(
        path, int(expected_rate * seconds * SIGNING_MARGIN) + 2 * ACTIVATION_LAG * connections, connections
    )
    before = _count_active(server)
    run = run_wrk(server.url, requests, connections, seconds)
    requests.delete()
    activated, active = run.statuses.get("200", 0), _count_active(server) - before
    if not activated <= active <= run.sent:
        raise InvalidRun(f"Of {run.sent} requests {activated} were activations with 200, but {active} are active.")
    return EnrolmentRun(run.rate / 2, run.p50_ms, run.p99_ms)


def _count_active(server: RunningServer) -> int:
    return int(server.fetch_value("SELECT count(*) FROM instances WHERE status = 'active'"))


def _sign(path: Path, number: int, connections: int) -> SignedRequests:
    """`number` enrolments in a file for each thread: each activation follows some registrations after its own."""
    parts = thread_count(connections)
    for part in range(parts):
        lag = ACTIVATION_LAG * connections // parts
        installs = [make_install() for _ in range(number // parts)]
        with path.with_name(f"{path.name}.{part}").open("wb") as out:
            for index, install in enumerate(installs):
                out.write(b"%sr%s %s\n" % (install.instance_id.encode(), UNSIGNED, registration_body(install)))
                if index > lag:  # wrk takes the very first line and does not send it
                    out.write(_activation_line(installs[index - lag]))
    return SignedRequests(path, parts)


def _activation_line(install: Install) -> bytes:
    return b"%sa%s %s\n" % (install.instance_id.encode(), _signature(install, ACTIVATION), ACTIVATION)


def _signature(install: Install, body: bytes) -> bytes:
    return nacl.bindings.crypto_sign(body, install.secret)[: nacl.bindings.crypto_sign_BYTES].hex().encode()


def registration_body(install: Install) -> bytes:
    """The body of a registration."""
    body = {
        "instance_id": install.instance_id,
        "public_key": install.public.hex(),
        "app_name": "Bench",
        "app_version": "1.4.2",
        "deployment_mode": "docker",
        "environment": "production",
        "os_arch": "linux/amd64",
    }
    return json.dumps(body, separators=(",", ":")).encode()


def measure_burst(server: RunningServer, size: int) -> list[float]:
    """New installs that register at the same moment, each on its own connection, and then activate.

    Returns the wait of each request, in seconds. Raises InvalidRun if one was refused.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, size + 200)), hard))
    return asyncio.run(_enrol_all(server.port, [make_install() for _ in range(size)]))


async def _enrol_all(port: int, installs: Sequence[Install]) -> list[float]:
    registrations = [(install, registration_body(install), _signature(install, ACTIVATION)) for install in installs]
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in installs]
    try:
        waits = await asyncio.gather(
            *(_enrol(reader, writer, *each) for (reader, writer), each in zip(opened, registrations, strict=True))
        )
    finally:
        for _, writer in opened:
            writer.close()
    return [wait for pair in waits for wait in pair]


async def _enrol(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, install: Install, registration: bytes, signature: bytes
) -> tuple[float, float]:
    signed = b"X-Instance-Id: %s\r\nX-Signature: %s\r\n" % (install.instance_id.encode(), signature)
    return (
        await _post(reader, writer, b"/v1/register", b"", registration, b"201"),
        await _post(reader, writer, b"/v1/activate", signed, ACTIVATION, b"200"),
    )


async def _post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: bytes, headers: bytes, body: bytes, status: bytes
) -> float:
    started_at = time.perf_counter()
    writer.write(
        b"POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s"
        % (path, len(body), headers, body)
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), RESPONSE_TIMEOUT_S)
    wait_s = time.perf_counter() - started_at
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    content = await reader.readexactly(length)
    if head.split(b" ")[1] != status:
        raise InvalidRun(f"{path.decode()}: {head.splitlines()[0]!r} {content[:200]!r}")
    return wait_s
