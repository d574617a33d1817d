"""The server predicts when the database will be full, and warns before."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest

from tests.support.clusters import embedded_cluster, wait_for
from tests.support.databases import execute, select_column
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.server_process import ServerProcess

GIB = 1024**3
MIB = 1024**2


def disk(server: ServerProcess) -> Any:
    """`disk` of `GET stats`."""
    return server.get("stats").json()["disk"]


def replace_sizes(database: str, days: float, growth: int) -> int:
    """Replaces the stored sizes by one of `days` ago, `growth` bytes below the present one, which it returns."""
    (size,) = select_column(database, "SELECT pg_database_size(current_database())")
    execute(database, "DELETE FROM database_sizes")
    execute(
        database,
        "INSERT INTO database_sizes VALUES (now() - %s * interval '1 day', %s), (now() - interval '1 minute', %s)",
        *(days, size - growth, size),
    )
    return int(size)


def test_the_date_follows_from_growth_and_limit(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_MAX_DISK="1g")
    wait_for(lambda: select_column(database, "SELECT count(*) FROM database_sizes") == [1], "the first stored size")
    assert (disk(server)["growth_bytes_per_day"], disk(server)["full_at"]) == (None, None)  # in the first hour

    size = replace_sizes(database, 5, 500 * MIB)
    forecast = disk(server)
    assert forecast["limit_bytes"] == GIB
    assert forecast["database_bytes"] == pytest.approx(size, rel=0.1)
    assert forecast["growth_bytes_per_day"] == pytest.approx(100 * MIB, rel=0.1)
    full_at = datetime.fromisoformat(forecast["full_at"])
    seconds = (GIB - size) / (100 * MIB) * 86_400
    assert (full_at - datetime.now(UTC)).total_seconds() == pytest.approx(seconds, rel=0.1)
    wait_for(lambda: "Enlarge its disk or SHM_MAX_DISK" in server.log, "the warning of the log")
    wait_for(lambda: 0 < sample_value(scrape(server), "shm_database_full_seconds") < inf, "the metrics")
    metrics = scrape(server)
    assert sample_value(metrics, "shm_database_limit_bytes") == GIB
    assert sample_value(metrics, "shm_database_growth_bytes_per_day") == pytest.approx(100 * MIB, rel=0.1)
    assert sample_value(metrics, "shm_database_full_seconds") == pytest.approx(seconds, rel=0.1)
    assert server.log.count("Enlarge its disk") == 1


@pytest.mark.parametrize("has_history", [False, True])
def test_a_growth_of_minutes_counts_if_as_much_remains(
    serve: Callable[..., ServerProcess], database: str, has_history: bool
) -> None:
    """Also in the first hour, and after days without growth."""
    server = serve(SHM_MAX_DISK="100m")
    remaining = 100 * MIB - replace_sizes(database, 0, 0)

    def full_in_s(growth: float) -> float:
        size = replace_sizes(database, 10 / 1440, round(growth))
        if has_history:
            execute(database, "INSERT INTO database_sizes VALUES (now() - interval '5 days', %s)", size)
        full_at = disk(server)["full_at"]
        return inf if full_at is None else (datetime.fromisoformat(full_at) - datetime.now(UTC)).total_seconds()

    assert full_in_s(remaining / 2) > 86_400
    assert full_in_s(remaining * 2) == pytest.approx(300, rel=0.2)
    wait_for(lambda: "full in 5 minutes. Enlarge its disk" in server.log, "the warning of the log")


def test_a_database_that_does_not_grow_is_never_full(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_MAX_DISK="1g")
    replace_sizes(database, 5, -100 * MIB)
    assert disk(server)["growth_bytes_per_day"] == pytest.approx(-20 * MIB, rel=0.1)
    assert disk(server)["full_at"] is None
    wait_for(lambda: sample_value(scrape(server), "shm_database_full_seconds") == inf, "the metrics")
    assert "Enlarge its disk" not in server.log


def test_a_limit_that_is_exceeded_is_full_now(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_MAX_DISK="1m")
    replace_sizes(database, 1, 1 * MIB)
    full_at = datetime.fromisoformat(disk(server)["full_at"])
    assert abs(full_at - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("growth", [None, -1 * MIB])
def test_a_limit_that_is_exceeded_is_full_now_without_growth(
    serve: Callable[..., ServerProcess], database: str, growth: int | None
) -> None:
    """`growth`: None in the first hour, when it is unknown."""
    server = serve(SHM_MAX_DISK="1m")
    if growth is not None:
        replace_sizes(database, 1, growth)
    full_at = datetime.fromisoformat(disk(server)["full_at"])
    assert abs(full_at - datetime.now(UTC)) < timedelta(minutes=1)
    wait_for(lambda: sample_value(scrape(server), "shm_database_full_seconds") == 0, "the metrics")
    wait_for(lambda: "Enlarge its disk or SHM_MAX_DISK" in server.log, "the warning of the log")


def test_without_a_limit_only_size_and_growth_are_known(server: ServerProcess, database: str) -> None:
    replace_sizes(database, 2, 20 * MIB)
    forecast = disk(server)
    assert (forecast["limit_bytes"], forecast["full_at"]) == (None, None)
    assert forecast["growth_bytes_per_day"] == pytest.approx(10 * MIB, rel=0.1)


def test_the_disk_of_an_embedded_postgres_is_its_limit(postgres_dir: Path) -> None:
    with embedded_cluster(postgres_dir) as cluster:
        forecast = disk(cluster.servers[0])
        free = shutil.disk_usage(postgres_dir).free
        assert forecast["limit_bytes"] == pytest.approx(forecast["database_bytes"] + free, abs=2 * GIB)
