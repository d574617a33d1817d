"""Bytes on disk for each stored snapshot of a fleet that reports hourly, and all of whose metrics change."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bench.intake.runs import PairRunner
from bench.support.fleet import Fleet
from bench.support.server import RunningServer

CHANGING_METRICS = 12
FLEET_SIZE = 2_000
MIN_SNAPSHOTS = 50_000  # PostgreSQL extends its files ahead of the rows, by up to half a MiB
SIZES = {
    "row": "SELECT sum(pg_table_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'snapshots'::regclass",
    "indexes": "SELECT sum(pg_indexes_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'snapshots'::regclass",
    "series": "SELECT pg_total_relation_size('series_hours') + pg_total_relation_size('series_days')",
    "totals": "SELECT pg_total_relation_size('tallies') + pg_total_relation_size('instances')",
    "wal": "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')",
}


@dataclass(frozen=True, slots=True)
class SnapshotDisk:
    """Bytes for each snapshot: its row, its indexes, its share of series and totals, and of the write-ahead log."""

    row: float
    indexes: float
    series: float
    totals: float
    wal: float


def measure_disk(server: RunningServer, runner: PairRunner, connections: int, expected_rate: float) -> SnapshotDisk:
    """Sends snapshots, and compares the sizes before and after them."""
    fleet = Fleet(FLEET_SIZE, changing_metrics, timedelta(hours=1))
    fleet.seed(server.dsn)
    server.wait_until_rolled_up()
    before, count, stored = _sizes(server), server.count_snapshots(), 0
    while stored < MIN_SNAPSHOTS:
        runner.run_server(fleet, connections, expected_rate)
        stored = server.count_snapshots() - count
    server.wait_until_rolled_up()
    return SnapshotDisk(**{name: (size - before[name]) / stored for name, size in _sizes(server).items()})


def changing_metrics(number: int) -> dict[str, Any]:
    """Whole numbers and fractions, each different in each snapshot."""
    return {
        f"metric_{index:02}": number * (index + 7) % 99_991 if index % 2 else number * (index + 3) % 99_991 / 8
        for index in range(CHANGING_METRICS)
    }


def _sizes(server: RunningServer) -> dict[str, float]:
    return {name: float(server.fetch_value(sql)) for name, sql in SIZES.items()}
