"""A full disk below the embedded PostgreSQL: clear refusals, no loss, and recovery once there is free space."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from shm.db.embedded.role import SUPERUSER
from tests.support.clusters import Cluster, embedded_cluster
from tests.support.installs import Install
from tests.support.load import Load, assert_acknowledged_stored
from tests.support.shm_command import run_shm
from tests.support.small_disk import SmallDisk, small_disk

SENDERS = 8
MIN_REFUSALS = 60  # before space is freed
MAX_LOG_LINES = 2  # about one fault that repeats
TIMEOUT_S = 60


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """A small disk."""
    with small_disk() as disk:
        yield disk


@pytest.fixture
def cluster(disk: SmallDisk, tmp_path: Path) -> Iterator[Cluster]:
    """A server whose embedded PostgreSQL is on the small disk."""
    with embedded_cluster(disk.folder, tmp_path / "log", SHM_DB_PATIENCE="1s") as cluster:
        yield cluster


def test_a_full_disk_refuses_snapshots_and_still_serves_reads(cluster: Cluster, disk: SmallDisk) -> None:
    """Free space alone is enough for snapshots to be accepted again."""
    (server,) = cluster.servers
    load = Load(cluster.urls, SENDERS)
    with load.running():
        load.wait_for_more(100)
        disk.fill()
        load.wait_for(lambda: load.refusals["database_full"] > MIN_REFUSALS, "refusals for a full disk")
        assert load.refusals.keys() == {"database_full"}
        for path in ("stats", "applications", "instances", "applications/ledger/kpis"):
            assert server.get(path).json()
        assert cluster.is_ready()
        disk.free_space()
        load.reset_progress()
        load.wait_for(load.has_progress, "new acknowledged snapshots")
    assert_acknowledged_stored(load, cluster.servers, cluster.dsn)
    faults = Counter(line.partition(" WARNING ")[2] for line in server.log.splitlines() if "DiskFull" in line)
    assert max(faults.values()) <= MAX_LOG_LINES, faults
    assert "Traceback" not in server.log


@pytest.mark.long
def test_postgres_restarts_after_a_full_disk_has_free_space(cluster: Cluster, disk: SmallDisk) -> None:
    (server,) = cluster.servers
    load = Load(cluster.urls, SENDERS)
    with load.running(), closing(psycopg2.connect(make_dsn(cluster.dsn, user=SUPERUSER))) as connection:
        load.wait_for_more(100)
        postmaster = psutil.Process(cluster.postmaster_pid())
        disk.fill()
        with pytest.raises(psycopg2.OperationalError):
            fill_write_ahead_log(connection)
        postmaster.wait(TIMEOUT_S)
        load.wait_for(lambda: load.refusals["database_unavailable"] > MIN_REFUSALS, "refusals without a database")
        assert load.refusals.keys() <= {"database_unavailable", "database_full"}
        disk.free_space()
        load.reset_progress()
        load.wait_for(load.has_progress, "new acknowledged snapshots")
    assert_acknowledged_stored(load, cluster.servers, cluster.dsn)
    assert "Free disk space" in server.log
    assert server.log.count("could not be started again") <= MAX_LOG_LINES
    assert "Traceback" not in server.log


def fill_write_ahead_log(connection: psycopg2.extensions.connection) -> None:
    """Writes until PostgreSQL has no space for its write-ahead log and stops."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        for number in range(10):
            cursor.execute("SELECT pg_switch_wal()")
            cursor.execute(f"CREATE TABLE filling_{number} ()")


@pytest.mark.long
def test_a_start_on_a_full_disk_ends_with_a_sentence(cluster: Cluster, disk: SmallDisk) -> None:
    (server,) = cluster.servers
    install = Install(server.url).enroll({"a": 1})
    assert server.terminate() == 0
    disk.fill()
    done = run_shm("serve", "--port", "0", "--data-dir", str(server.data_dir))
    assert done.returncode == 1
    assert "Free disk space" in done.stderr
    assert "Traceback" not in done.stderr
    disk.free_space()
    server.start()
    assert [item["instance_id"] for item in server.get("instances").json()] == [install.instance_id]
