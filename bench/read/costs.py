"""What a fleet costs besides time to read it: bytes on disk, rolling a day up, checking it, exporting it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import entry_points

import psutil

from bench.read.endpoints import Client, Endpoint
from bench.read.seeded_fleet import Estate, another_day, connected
from bench.support.errors import Fault
from bench.support.memory import Peak, watched
from bench.support.processes import CHECKOUT
from bench.support.report import say
from bench.support.server import RunningServer
from shm.cli import GROUP

EXPORT = Endpoint("export", "export?format=jsonl", is_constant=False)
NOT_THERE = "not there yet"

# Of a partitioned table, of all of its partitions.
SIZES = """
SELECT sum(pg_relation_size(oid)), sum(pg_total_relation_size(oid)) FROM pg_class
WHERE oid = %(table)s::regclass OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %(table)s::regclass)
"""


def say_sizes(dsn: str, estate: Estate) -> None:
    """Bytes on disk."""
    with connected(dsn) as cursor:
        cursor.execute("SELECT count(*) FROM snapshots")
        (snapshots,) = cursor.fetchone()
        for table, number, one in (("instances", estate.installs, "instance"), ("snapshots", snapshots, "snapshot")):
            rows, whole = _sizes(cursor, table)
            say(
                f"{estate.named}: {whole / number:,.0f} bytes for each {one} ({rows / number:,.0f} of its row, the "
                f"rest of indexes just built), {whole / 2**20:,.0f} MiB for {number:,}"
            )
        sizes = {table: _sizes(cursor, table)[1] / 2**20 for table in ("tallies", "series_hours", "series_days")}
        say(f"{estate.named}: " + ", ".join(f"{table} {size:,.1f} MiB" for table, size in sizes.items()))


def say_catch_up(dsn: str, postmaster: int, estate: Estate) -> None:
    """A day of hourly snapshots of the installs that are active, rolled up at once."""
    wanted = another_day(dsn)
    said, peak = _watched_run([sys.executable, "-m", "bench.read.catch_up", dsn], postmaster, {})
    took = json.loads(said)
    with connected(dsn) as cursor:
        cursor.execute("SELECT (SELECT cursor FROM feed_head) - (SELECT cursor FROM series_head)")
        if cursor.fetchone() != (0,):
            raise Fault("Snapshots were left that are not rolled up.")
    say(
        f"{estate.named}: rolled up {wanted:,} snapshots of one day in {took['seconds']:.1f} s, "
        f"{wanted / took['seconds']:,.0f}/s (a server rests twice as long as each step takes), "
        f"longest step {took['longest']:.2f} s, {peak.shown()}"
    )


def say_check(dsn: str, postmaster: int, estate: Estate) -> None:
    """`shm check`, if there is one."""
    if "check" not in {point.name for point in entry_points(group=GROUP)}:
        say(f"shm check: {NOT_THERE}")
        return
    began = time.monotonic()
    _, peak = _watched_run([sys.executable, "-m", "shm.cli", "check"], postmaster, {"SHM_DB_DSN": dsn})
    say(f"{estate.named}: shm check took {time.monotonic() - began:.1f} s, {peak.shown()}")


def say_export(running: RunningServer, client: Client, estate: Estate) -> None:
    """Everything of every instance, through the server, if it can."""
    if not EXPORT.is_there:
        say(f"export: {NOT_THERE}")
        return
    server = psutil.Process(running.pid)
    with watched(lambda: [server], running.postmaster) as peak:
        took_ms = client.ask(EXPORT)
    say(f"{estate.named}: export took {took_ms / 1e3:.1f} s, the server's {peak.shown()}")


def _sizes(cursor: object, table: str) -> tuple[int, int]:
    cursor.execute(SIZES, {"table": table})  # type: ignore[attr-defined]  # psycopg2 has no types
    return cursor.fetchone()  # type: ignore[attr-defined,no-any-return]


def _watched_run(command: Sequence[str], postmaster: int, environment: dict[str, str]) -> tuple[str, Peak]:
    process = subprocess.Popen(
        command, cwd=CHECKOUT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watch = psutil.Process(process.pid)
    with watched(lambda: [watch], postmaster) as peak:
        said, complaint = process.communicate()
    if process.returncode != 0:
        raise Fault(f"{' '.join(command[1:4])} ended with the status {process.returncode}: {said} {complaint}")
    return said, peak
