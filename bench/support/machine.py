"""What the machine is, and what it can do by itself: a commit, an fsync, an Ed25519 verification."""

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

IN_MEMORY = ("tmpfs", "ramfs")
WAL_PAGE = b"\0" * 8192  # what a small commit writes before it waits for the disk
SCRATCH = """
CREATE TABLE IF NOT EXISTS bench_commits (number integer, at timestamptz, metrics jsonb, PRIMARY KEY (number, at))"""


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in milliseconds."""

    p50_ms: float
    p99_ms: float


def described(postgresql: str, folder: Path) -> str:
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
    """What kind of file system `folder` lies on."""
    resolved = folder.resolve()
    mounted = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounted[above] for above in (resolved, *resolved.parents) if above in mounted), "unknown")


def commits(dsn: str, body: bytes, seconds: float) -> Times:
    """INSERT of one row as long as a snapshot, and COMMIT, over one connection with nothing else going on."""
    taken: list[float] = []
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(SCRATCH)
            connection.commit()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                before = time.perf_counter()
                row = (len(taken), body.decode())
                cursor.execute("INSERT INTO bench_commits VALUES (%s, clock_timestamp(), %s)", row)
                connection.commit()
                taken.append(time.perf_counter() - before)
    finally:
        connection.close()
    return _times(taken)


def fsyncs(folder: Path, seconds: float) -> Times:
    """One page written to a file and waited for, over and over, as PostgreSQL does with its WAL."""
    file = folder / "bench.fsync"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    taken: list[float] = []
    try:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            before = time.perf_counter()
            os.pwrite(descriptor, WAL_PAGE, 0)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - before)
    finally:
        os.close(descriptor)
        file.unlink()
    return _times(taken)


def verifications(signed: Iterable[tuple[bytes, bytes]], seconds: float) -> float:
    """Ed25519 verifications a second on one core, of these bodies and of nothing else."""
    given = list(signed)
    done = 0
    begins = time.perf_counter()
    while (now := time.perf_counter()) < begins + seconds:
        for public_key, message in given:
            nacl.bindings.crypto_sign_open(message, public_key)
        done += len(given)
    return done / (now - begins)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, of its children, and of those children that have ended."""
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:  # it ended just now; its time stands with its parent's from now on
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def busy_seconds() -> float:
    """Processor time of the whole machine so far, also what a hypervisor took of it."""
    passed = psutil.cpu_times()
    return float(passed.user + passed.nice + passed.system + passed.irq + passed.softirq + passed.steal)


def _times(seconds: list[float]) -> Times:
    hundredths = statistics.quantiles(seconds, n=100)
    return Times(hundredths[49] * 1e3, hundredths[98] * 1e3)


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []
