"""The bench measures what it says: every request once, every answer counted, and held to the database."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench.intake.runs import Ledger
from bench.intake.wrk import HOW_TO_GET_IT, Run, drive, is_there
from bench.support.errors import Fault
from bench.support.fleet import Fleet
from tests.support.load import stored
from tests.support.server_process import ServerProcess

CHECKOUT = Path(__file__).parent.parent.parent
CONNECTIONS = 2

wants_wrk = pytest.mark.skipif(not is_there(), reason=HOW_TO_GET_IT)


@wants_wrk
def test_the_quick_bench_stores_all_that_was_acknowledged(open_folder: Path) -> None:
    shape = ("--quick", "--workers", "1", "--connections", f"{CONNECTIONS}", "--folder", str(open_folder))
    done = subprocess.run(
        [sys.executable, "-m", "bench.intake", *shape], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = re.search(r"acknowledged ([\d,]+), stored ([\d,]+), sent ([\d,]+)", done.stdout)
    assert said is not None, done.stdout
    acknowledged, in_the_database, sent = (int(figure.replace(",", "")) for figure in said.groups())
    assert 0 < acknowledged <= in_the_database <= sent
    assert list(open_folder.iterdir()) == []


def test_installs_of_a_bench_are_counted_like_any_others(server: ServerProcess, database: str) -> None:
    Fleet(3).seed(database)
    Fleet(4).seed(database)
    (shown,) = server.get("applications").json()
    assert shown["instances"] == {"total": 7, "active": 7, "pending": 0, "revoked": 0, "counted": 7, "excluded": 0}
    stats = server.get("stats").json()
    assert (stats["daily_active"], stats["new_this_week"]) == (7, 7)
    instances = server.get("instances")
    assert (len(instances.json()), instances.headers["X-Feed-Cursor"]) == (7, "7")


@wants_wrk
def test_each_signed_request_is_sent_once_and_running_out_of_them_is_no_figure(
    server: ServerProcess, database: str, tmp_path: Path
) -> None:
    fleet = Fleet(3)
    fleet.seed(database)
    requests = fleet.sign(tmp_path / "requests", 10, CONNECTIONS)
    with pytest.raises(Fault, match="did not last"):
        drive(server.url, requests, CONNECTIONS, 1)
    assert len(stored(database)) == 9  # the first one wrk only looks at


@wants_wrk
def test_an_answer_that_is_none_of_2xx_is_no_figure(running: ServerProcess, tmp_path: Path) -> None:
    strangers = Fleet(100).sign(tmp_path / "requests", 1_000, CONNECTIONS)
    with pytest.raises(Fault, match="403"):
        drive(running.url, strangers, CONNECTIONS, 1)


@wants_wrk
def test_answers_that_are_missing_because_the_server_died_are_no_figure(
    server: ServerProcess, database: str, tmp_path: Path
) -> None:
    fleet = Fleet(100)
    fleet.seed(database)
    requests = fleet.sign(tmp_path / "requests", 50_000, CONNECTIONS)
    killer = threading.Timer(1.0, server.kill)
    killer.start()
    with pytest.raises(Fault, match=r"had no answer|may be under way"):
        drive(server.url, requests, CONNECTIONS, 3)
    killer.join()


@pytest.mark.parametrize("in_the_database", [99, 121])
def test_a_database_that_holds_fewer_than_acknowledged_or_more_than_sent_is_no_figure(in_the_database: int) -> None:
    run = Run(1.0, sent=120, ran_out=0, failures=0, p50_ms=1, p99_ms=1, statuses={"202": 100}, driver_cpu=0)
    with pytest.raises(Fault, match="120 sent, 100 were acknowledged"):
        Ledger().enter(run, in_the_database)
