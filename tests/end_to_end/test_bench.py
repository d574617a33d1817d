"""The intake bench sends each request once, counts each response, and compares with the database."""

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.intake.runs import Totals
from bench.intake.wrk import INSTALL_HINT, WrkRun, is_installed, run_wrk
from bench.support.errors import InvalidRun
from bench.support.fleet import Fleet
from tests.support.bench_program import run_bench
from tests.support.load import stored_snapshots
from tests.support.server_process import ServerProcess

CONNECTIONS = 2

needs_wrk = pytest.mark.skipif(not is_installed(), reason=INSTALL_HINT)


@pytest.mark.long
@needs_wrk
def test_the_quick_intake_bench_stores_what_is_acknowledged(postgres_dir: Path) -> None:
    shape = ("--quick", "--workers", "1", "--connections", f"{CONNECTIONS}")
    output = run_bench("intake", postgres_dir, *shape)
    found = re.search(r"acknowledged ([\d,]+), stored ([\d,]+), sent ([\d,]+)", output)
    assert found is not None, output
    acknowledged, stored, sent = (int(figure.replace(",", "")) for figure in found.groups())
    assert 0 < acknowledged <= stored <= sent


@pytest.mark.long
def test_the_check_bench_measures_a_check_beside_a_server(postgres_dir: Path) -> None:
    shape = ("--installs", "300", "--snapshots", "3")
    output = run_bench("check", postgres_dir, *shape)
    assert re.search(r"shm check of [\d,]+ snapshots beside a server", output), output


def test_installs_seeded_by_a_bench_are_counted(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve()  # a new one, whose cursors are those of the installs
    Fleet(3).seed(database)
    Fleet(4).seed(database)
    (shown,) = server.get("applications").json()
    assert shown["instances"] == {
        "total": 7,
        "active": 7,
        "pending": 0,
        "revoked": 0,
        "counted": 7,
        "excluded": 0,
        "unproven": 0,
        "unreported": 7,
    }
    stats = server.get("stats").json()
    assert (stats["daily_active"], stats["new_this_week"]) == (7, 7)
    instances = server.get("instances")
    assert (len(instances.json()), instances.headers["X-Feed-Cursor"]) == (7, "7")


@needs_wrk
def test_signed_requests_are_sent_once_exhaustion_is_invalid(
    server: ServerProcess, database: str, tmp_path: Path
) -> None:
    fleet = Fleet(3)
    fleet.seed(database)
    requests = fleet.sign(tmp_path / "requests", 10, CONNECTIONS)
    with pytest.raises(InvalidRun, match="exhausted"):
        run_wrk(server.url, requests, CONNECTIONS, 5)  # a busy machine sends ten within seconds
    assert len(stored_snapshots(database)) == 9  # wrk reads the first one without sending it


@needs_wrk
def test_a_response_other_than_2xx_is_invalid(shared_server: ServerProcess, tmp_path: Path) -> None:
    unknown_installs = Fleet(100).sign(tmp_path / "requests", 1_000, CONNECTIONS)
    with pytest.raises(InvalidRun, match="403"):
        run_wrk(shared_server.url, unknown_installs, CONNECTIONS, 1)


@pytest.mark.long
@needs_wrk
def test_missing_responses_of_a_killed_server_are_invalid(server: ServerProcess, database: str, tmp_path: Path) -> None:
    fleet = Fleet(100)
    fleet.seed(database)
    requests = fleet.sign(tmp_path / "requests", 20_000, CONNECTIONS)
    killer = threading.Timer(1.0, server.kill)
    killer.start()
    with pytest.raises(InvalidRun, match=r"had no response|may be in flight"):
        run_wrk(server.url, requests, CONNECTIONS, 3)
    killer.join()


@pytest.mark.parametrize("stored", [99, 121])
def test_stored_snapshots_must_be_between_acknowledged_and_sent(stored: int) -> None:
    run = WrkRun(1.0, sent=120, exhausted=0, failures=0, p50_ms=1, p99_ms=1, statuses={"202": 100}, wrk_cores=0)
    with pytest.raises(InvalidRun, match="120 sent, 100 were acknowledged"):
        Totals().add_server_run(run, stored)
