"""Costs of a fleet other than reading it: bytes on disk, the rollup of a day, `shm check`, an export."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import entry_points

import psutil

from bench.read.endpoints import Endpoint, TimedClient
from bench.read.seeded_fleet import SeededFleet, add_day, open_cursor
from bench.support.errors import InvalidRun
from bench.support.memory import PeakMemory, track_peak
from bench.support.processes import CHECKOUT
from bench.support.report import print_line
from bench.support.server import RunningServer
from shm.cli.main import GROUP

EXPORT = Endpoint("export", "export?format=jsonl", is_constant=False)
NOT_AVAILABLE = "not in this version"

# Of a partitioned table: of all its partitions.
SIZES = """
SELECT sum(pg_relation_size(oid)), sum(pg_total_relation_size(oid)) FROM pg_class
WHERE oid = %(table)s::regclass OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %(table)s::regclass)
"""


def print_sizes(dsn: str, fleet: SeededFleet) -> None:
    """Bytes on disk."""
    with open_cursor(dsn) as cursor:
        cursor.execute("SELECT count(*) FROM snapshots")
        (snapshots,) = cursor.fetchone()
        for table, number, one in (("instances", fleet.installs, "instance"), ("snapshots", snapshots, "snapshot")):
            rows, whole = _sizes(cursor, table)
            print_line(
                f"{fleet.name}: {whole / number:,.0f} bytes for each {one} ({rows / number:,.0f} of its row, the "
                f"rest of indexes just built), {whole / 2**20:,.0f} MiB for {number:,}"
            )
        sizes = {table: _sizes(cursor, table)[1] / 2**20 for table in ("tallies", "series_hours", "series_days")}
        print_line(f"{fleet.name}: " + ", ".join(f"{table} {size:,.1f} MiB" for table, size in sizes.items()))


def print_rollup(dsn: str, postmaster: int | None, fleet: SeededFleet) -> None:
    """The rollup of a day of hourly snapshots of all active installs."""
    snapshots = add_day(dsn)
    result, peak = roll_up(dsn, postmaster)
    with open_cursor(dsn) as cursor:
        cursor.execute("SELECT (SELECT cursor FROM feed_head) - (SELECT cursor FROM series_head)")
        if cursor.fetchone() != (0,):
            raise InvalidRun("Snapshots remain that are not rolled up.")
    print_line(
        f"{fleet.name}: rolled up {snapshots:,} snapshots of one day in {result['seconds']:.1f} s, "
        f"{snapshots / result['seconds']:,.0f}/s (a server pauses twice as long as each step takes), "
        f"longest step {result['longest']:.2f} s, {peak.format()}"
    )


def roll_up(dsn: str, postmaster: int | None) -> tuple[dict[str, float], PeakMemory]:
    """Rolls up all stored snapshots. Returns the result of `bench.read.catch_up`."""
    stdout, peak = _run_tracked([sys.executable, "-m", "bench.read.catch_up", dsn], postmaster, {})
    return json.loads(stdout), peak


def print_check(dsn: str, postmaster: int | None, fleet: SeededFleet) -> None:
    """`shm check`, if this version has it."""
    if "check" not in {point.name for point in entry_points(group=GROUP)}:
        print_line(f"shm check: {NOT_AVAILABLE}")
        return
    started = time.monotonic()
    peak = run_check(dsn, postmaster)
    print_line(f"{fleet.name}: shm check took {time.monotonic() - started:.1f} s, {peak.format()}")


def run_check(dsn: str, postmaster: int | None) -> PeakMemory:
    """`shm check`. Raises InvalidRun if it finds a difference."""
    return _run_tracked([sys.executable, "-m", "shm.cli", "check"], postmaster, {"SHM_DB_DSN": dsn})[1]


def print_export(server: RunningServer, client: TimedClient, fleet: SeededFleet) -> None:
    """An export of all instances through the server, if this version has it."""
    if EXPORT.route is None:
        print_line(f"export: {NOT_AVAILABLE}")
        return
    with track_peak(psutil.Process(server.pid), server.postmaster) as peak:
        latency_ms = client.request(EXPORT)
    print_line(f"{fleet.name}: export took {latency_ms / 1e3:.1f} s, the server's {peak.format()}")


def _sizes(cursor: object, table: str) -> tuple[int, int]:
    cursor.execute(SIZES, {"table": table})  # type: ignore[attr-defined]  # psycopg2 has no types
    return cursor.fetchone()  # type: ignore[attr-defined,no-any-return]


def _run_tracked(command: Sequence[str], postmaster: int | None, environment: dict[str, str]) -> tuple[str, PeakMemory]:
    process = subprocess.Popen(
        command, cwd=CHECKOUT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with track_peak(psutil.Process(process.pid), postmaster) as peak:
        stdout, stderr = process.communicate()
    if process.returncode != 0:
        raise InvalidRun(f"{' '.join(command[1:4])} ended with status {process.returncode}: {stdout} {stderr}")
    return stdout, peak
