"""One install is one reporter, whatever its processes: one sender, and the sum of their counts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shm_sdk import Client
from shm_sdk.locks import FileLock, is_abandoned
from tests.support.scripted_server import ScriptedServer
from tests.support.sdk_hosts import run_host

MakeClient = Callable[..., Client]
SHARED = "cafe-ledger_telemetry"

HOST = """
import sys, time
import shm_sdk
telemetry = shm_sdk.Client(sys.argv[1], "Café Ledger", "1.4.2", data_dir=sys.argv[2], collect_system_metrics=False)
exports = telemetry.counter("exports")
"""


@contextmanager
def running_host(program: str, *arguments: str | Path) -> "Iterator[subprocess.Popen[str]]":
    """A host program, killed at the end of the context."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOST + program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def wait_until(condition: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


FOUR_WORKERS = """
import multiprocessing

def work():
    telemetry.start(first_report_after=float(sys.argv[4]))
    for _ in range(250):
        exports.inc()
    telemetry.gauge("open_connections").set(5)
    time.sleep(float(sys.argv[3]))

def main():
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

main()
"""


def test_four_processes_report_once(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """As with `gunicorn -w 4`, in which each worker starts telemetry."""
    run_host(HOST + FOUR_WORKERS, scripted_server.url, tmp_path, "3", "1")
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]
    assert scripted_server.metrics == [{"exports": 1000, "open_connections": 20}]


def test_the_counts_of_ended_processes_are_kept(
    scripted_server: ScriptedServer, tmp_path: Path, client: MakeClient
) -> None:
    for _ in range(3):
        run_host(HOST + FOUR_WORKERS, scripted_server.url, tmp_path / "data", "0", "300")
    telemetry = client()
    for total in (3000, 3000):
        assert telemetry.report_now().sent
        assert scripted_server.metrics[-1] == {"exports": total}
    assert list((tmp_path / "data" / SHARED / "counters").iterdir()) == []


def test_a_forked_child_counts_and_the_parent_reports(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """As with `gunicorn --preload` and Celery's prefork pool, in which only the master has started telemetry."""
    program = """
import os
telemetry.start(first_report_after=1)
exports.inc(5)
for _ in range(3):
    if os.fork() == 0:
        exports.inc(10)
        time.sleep(6)
        os._exit(0)
time.sleep(4)
"""
    run_host(HOST + program, scripted_server.url, tmp_path)
    assert scripted_server.metrics == [{"exports": 35}]


def test_a_child_takes_over_when_its_parent_is_killed(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    program = """
import os, shm_sdk.sender
shm_sdk.sender.TAKEOVER_POLL_S = 1.0
telemetry.start(first_report_after=8)
time.sleep(0.5)
child = os.fork()
if child == 0:
    exports.inc()
    time.sleep(60)
    os._exit(0)
print(child)
time.sleep(60)
"""
    with running_host(program, scripted_server.url, tmp_path / "data") as host:
        child = int(line_of(host))
        wait_until((tmp_path / "data" / SHARED / "state.json").exists)
        os.kill(host.pid, signal.SIGKILL)
        host.wait()
        scripted_server.wait_for("/v1/snapshot")
        os.kill(child, signal.SIGKILL)
    assert scripted_server.metrics == [{"exports": 1}]


def test_a_lock_excludes_other_processes_until_its_owner_ends(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    assert not FileLock(tmp_path / "lock").acquire(0.05)
    child = os.fork()
    if child == 0:
        os._exit(0 if not FileLock(tmp_path / "lock").acquire(0.05) and not lock.is_held else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not FileLock(tmp_path / "lock").acquire(0.05)  # the child has not released it
    lock.release()
    assert FileLock(tmp_path / "lock").acquire()


def test_a_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    program = """
import os
from decimal import Decimal
from pathlib import Path
from shm_sdk.locks import FileLock
lock = FileLock(Path(sys.argv[2]) / "lock")
assert lock.acquire()
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child)
sys.stdin.read()
"""
    with running_host(program, "http://localhost:1", tmp_path) as host:
        child = int(line_of(host))
        assert not is_abandoned(tmp_path / "lock")
        os.kill(host.pid, signal.SIGKILL)
        host.wait()
        wait_until(lambda: is_abandoned(tmp_path / "lock"))
        os.kill(child, signal.SIGKILL)


def test_a_script_counts_without_start(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    for _ in range(2):
        run_host(HOST + "exports.inc(2); print(telemetry.report_now())", scripted_server.url, tmp_path)
    assert scripted_server.metrics == [{"exports": 2}, {"exports": 4}]


def test_a_per_process_provider_is_collected_from_each(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    program = """
import os, shm_sdk.forking, shm_sdk.sender
shm_sdk.sender.TAKEOVER_POLL_S = 2.0
shm_sdk.forking.load_reporting_modules()

@telemetry.provider(per_process=True)
def connections():
    return {"pool": {"open": 2, "name": "main"}, "is_busy": True}

@telemetry.provider
def documents():
    return {"documents": 9}

telemetry.start(first_report_after=9)
for _ in range(2):
    if os.fork() == 0:
        time.sleep(12)
        os._exit(0)
time.sleep(12)
"""
    run_host(HOST + program, scripted_server.url, tmp_path)
    assert scripted_server.metrics == [{"pool.open": 6, "is_busy": 3, "documents": 9}]


def test_two_applications_in_one_directory_are_two_reporters(
    scripted_server: ScriptedServer, client: MakeClient
) -> None:
    first, second = client(), client(app_name="Billing")
    for telemetry, amount in ((first, 3), (second, 4)):
        telemetry.counter("exports").inc(amount)
        assert telemetry.report_now().sent
    assert scripted_server.metrics == [{"exports": 3}, {"exports": 4}]
    assert len({body["instance_id"] for body in scripted_server.bodies("/v1/register")}) == 2


def test_clients_of_one_directory_warn_once(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    program = """
import logging, os
logging.basicConfig(format="%(message)s", stream=sys.stdout)
os.makedirs(sys.argv[2] + "/cafe-ledger_telemetry/state.json")
for name in ("counters", "report.lock"):
    os.makedirs(sys.argv[2] + "/cafe-ledger_telemetry/" + name + "/x")
os.chmod(sys.argv[2] + "/cafe-ledger_telemetry/counters", 0)
for _ in range(3):
    other = shm_sdk.Client(sys.argv[1], "Café Ledger", "1.4.2", data_dir=sys.argv[2], collect_system_metrics=False)
    other.counter("exports").inc()
    other.start(first_report_after=600)
    other.report_now(60)
    other.stop()
"""
    lines = run_host(HOST + program, scripted_server.url, tmp_path / "data").splitlines()
    assert lines
    assert len(set(lines)) == len(lines)
