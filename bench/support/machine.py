"""The machine's description, and baselines of it: a commit, an fsync, an Ed25519 verification."""

import os
import platform
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nacl.bindings
import psutil
import psycopg2
import tornado

IN_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")
WAL_PAGE = b"\0" * 8192  # a small commit writes one page and waits for the disk
CREATE_SCRATCH_TABLE = """
CREATE TABLE IF NOT EXISTS bench_commits (number integer, at timestamptz, metrics jsonb, PRIMARY KEY (number, at))"""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of a duration, in milliseconds."""

    p50_ms: float
    p99_ms: float


def describe_machine(postgresql: str, folder: Path) -> str:
    """The machine in one line."""
    processor = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} CPUs ({processor}), Python {platform.python_version()}, Tornado {tornado.version}, "
        f"PostgreSQL {postgresql} on {file_system(folder)}, load {os.getloadavg()[0]:.1f} at the start"
    )


def file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`."""
    resolved = folder.resolve()
    mounted = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounted[above] for above in (resolved, *resolved.parents) if above in mounted), "unknown")


def measure_commits(dsn: str, body: bytes, seconds: float) -> Percentiles:
    """INSERT of one row as long as a snapshot, and COMMIT, on one connection without other load."""
    durations: list[float] = []
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(CREATE_SCRATCH_TABLE)
            connection.commit()
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                before = time.perf_counter()
                row = (len(durations), body.decode())
                cursor.execute("INSERT INTO bench_commits VALUES (%s, clock_timestamp(), %s)", row)
                connection.commit()
                durations.append(time.perf_counter() - before)
    finally:
        connection.close()
    return _percentiles(durations)


def measure_fsyncs(folder: Path, seconds: float) -> Percentiles:
    """Writes one page and waits for fdatasync, as PostgreSQL does with its WAL."""
    file = folder / "bench.fsync"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    durations: list[float] = []
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            before = time.perf_counter()
            os.pwrite(descriptor, WAL_PAGE, 0)
            os.fdatasync(descriptor)
            durations.append(time.perf_counter() - before)
    finally:
        os.close(descriptor)
        file.unlink()
    return _percentiles(durations)


def measure_verifications(signed: Iterable[tuple[bytes, bytes]], seconds: float) -> float:
    """Ed25519 verifications a second of these bodies on one core."""
    pairs = list(signed)
    done = 0
    started = time.perf_counter()
    while (now := time.perf_counter()) < started + seconds:
        for public_key, message in pairs:
            nacl.bindings.crypto_sign_open(message, public_key)
        done += len(pairs)
    return done / (now - started)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children, including children that have ended."""
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:  # it ended; its parent's times include it now
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def machine_cpu_seconds() -> float:
    """CPU time of the whole machine so far, including time stolen by a hypervisor."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _percentiles(seconds: list[float]) -> Percentiles:
    hundredths = statistics.quantiles(seconds, n=100)
    return Percentiles(hundredths[49] * 1e3, hundredths[98] * 1e3)


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []
