"""One install is one reporter, whatever its processes: one sender, sums, restarts that inflate nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client
from shm_sdk.configuration import load_configuration
from shm_sdk.counters import COUNT, LATEST, SUM, Counters, merge_ended, sum_up
from shm_sdk.locks import FileLock, is_abandoned
from shm_sdk.sender import Sender
from shm_sdk.shared_directory import SharedDirectory
from shm_sdk.state import State, StateFile
from tests.support.scripted_server import ScriptedServer, reply
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


def snapshots(scripted_server: ScriptedServer) -> list[Any]:
    return [request.json["metrics"] for request in scripted_server.requests if request.path == "/v1/snapshot"]


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
    assert snapshots(scripted_server) == [{"exports": 1000, "open_connections": 20}]


def test_the_counts_of_ended_processes_are_kept(
    scripted_server: ScriptedServer, tmp_path: Path, client: MakeClient
) -> None:
    for _ in range(3):
        run_host(HOST + FOUR_WORKERS, scripted_server.url, tmp_path / "data", "0", "300")
    telemetry = client()
    for total in (3000, 3000):
        assert telemetry.report_now().sent
        assert snapshots(scripted_server)[-1] == {"exports": total}
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
    assert snapshots(scripted_server) == [{"exports": 35}]


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
    assert snapshots(scripted_server) == [{"exports": 1}]


def set_state(tmp_path: Path, **members: object) -> None:
    path = tmp_path / "data" / SHARED / "state.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document | members))


def read_state(tmp_path: Path) -> dict[str, Any]:
    document = json.loads((tmp_path / "data" / SHARED / "state.json").read_text())
    assert isinstance(document, dict)
    return document


def test_a_second_start_sends_one_request(client: MakeClient, scripted_server: ScriptedServer) -> None:
    assert client().report_now().sent
    assert client().report_now().sent
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot", "/v1/snapshot"]
    assert [body["sequence"] for body in scripted_server.bodies("/v1/snapshot")] == [1, 2]


@pytest.mark.parametrize("change", [{"app_version": "1.5.0"}, {"environment": "staging"}, {"app_name": "cafe ledger!"}])
def test_an_install_that_says_something_else_registers_again(
    client: MakeClient, scripted_server: ScriptedServer, change: dict[str, str]
) -> None:
    assert client().report_now().sent
    assert client(**change).report_now().sent
    assert scripted_server.paths.count("/v1/register") == 2


def test_an_unknown_install_registers_again_in_the_next_process(
    client: MakeClient, scripted_server: ScriptedServer
) -> None:
    assert client().report_now().sent
    scripted_server.script("/v1/snapshot", reply(403))
    assert client().report_now().sent
    assert scripted_server.paths[3:] == ["/v1/snapshot", "/v1/register", "/v1/activate", "/v1/snapshot"]


def test_a_restart_keeps_to_the_servers_retry_after(client: MakeClient, scripted_server: ScriptedServer) -> None:
    scripted_server.script("/v1/register", reply(503, Retry_After="1800"))
    client().report_now()
    assert 0 < (client().report_now().retry_after or 0) <= 1800
    assert scripted_server.paths == ["/v1/register"]


def make_sender(tmp_path: Path, first_report_after: float | None = None) -> Sender:
    settings = {"server_url": "http://localhost:1", "app_name": "Café Ledger", "app_version": "1"}
    configuration = load_configuration({**settings, "data_dir": tmp_path / "data"}, {})
    import random

    return Sender(
        configuration,
        SharedDirectory(configuration),
        random.Random(1),
        first_report_after=first_report_after,
        prepare_report=lambda: None,
    )


def test_the_first_delay_counts_from_the_first_start_ever(tmp_path: Path) -> None:
    """Processes that live shorter than the delay report too, together."""
    first = make_sender(tmp_path)
    assert 0 < first.next_delay() <= 300
    due = read_state(tmp_path)["next_report_at"]
    assert 300 <= due - time.time() + 1 <= 901
    first.close()
    second = make_sender(tmp_path)
    second.next_delay()
    assert read_state(tmp_path)["next_report_at"] == due
    second.close()
    set_state(tmp_path, next_report_at=time.time() - 1)
    assert make_sender(tmp_path).next_delay() == 0


def test_a_first_report_becomes_due_where_nothing_can_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(StateFile, "save", fail)
    sender, now = make_sender(tmp_path), time.time()
    assert sender.next_delay() > 0
    monkeypatch.setattr("shm_sdk.clock.Clock.timestamp", lambda _: now + 901)
    assert sender.next_delay() == 0
    sender.record_report(now + 901)
    assert sender.next_delay() > 0  # it does not report again and again


def test_only_one_sender_reports(tmp_path: Path) -> None:
    first, second = make_sender(tmp_path, 0), make_sender(tmp_path, 0)
    assert first.next_delay() == 0
    assert second.next_delay() > 10
    set_state(tmp_path, next_report_at=time.time() + 3600)  # as the report does
    first.close()
    assert second.next_delay() > 0  # the other process has reported; this one waits for the next time


def test_a_time_that_a_wrong_clock_has_stored_is_replaced(tmp_path: Path) -> None:
    set_state(tmp_path, next_report_at=time.time() + 10 * 365 * 86400)
    sender = make_sender(tmp_path)
    sender.next_delay()
    assert read_state(tmp_path)["next_report_at"] - time.time() < 901


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"{",
            b"[]",
            b'{"sequence": "x", "counts": [1], "latest": {"a": 1}}',
            b"\xff",
            b'{"sequence": ' + b"9" * 5_000,
        ),
        b'{"quiet_until": %d, "next_report_at": Infinity, "last_sent_at": NaN}' % (10**400),
        b'{"counts": {"a": %d, "b": Infinity, "c": true}, "latest": {"a": [1, %d], "b": [1]}}' % (10**400, 10**400),
    ],
)
def test_a_damaged_state_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    assert vars(StateFile(tmp_path).load()) == vars(State())


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


def test_counts_are_merged_exactly_once(tmp_path: Path) -> None:
    """Also if the sender is killed between the two steps: the state is saved, the file is not yet removed."""
    child = os.fork()
    if child == 0:
        counters = Counters(lambda: tmp_path)
        counters.change("exports", COUNT, 7)
        counters.change("connections", SUM, 3)
        counters.change("documents", LATEST, 12)
        os._exit(0)
    os.waitpid(child, 0)
    assert sum_up(tmp_path, State(), []) == {"exports": 7, "documents": 12}  # nothing is connected any more
    state = State()
    (file,) = merge_ended(tmp_path, state)
    for _ in range(2):
        assert sum_up(tmp_path, state, []) == {"exports": 7, "documents": 12}
        assert merge_ended(tmp_path, state) == [file]
    file.unlink()
    assert merge_ended(tmp_path, state) == []
    assert sum_up(tmp_path, state, []) == {"exports": 7, "documents": 12}


def test_threads_lose_no_increment(tmp_path: Path) -> None:
    import threading

    counters = Counters(lambda: tmp_path)

    def count() -> None:
        for _ in range(5000):
            counters.change("exports", COUNT, 1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters.write()
    assert sum_up(tmp_path, State(), []) == {"exports": 40_000}


def test_counters_without_telemetry_touch_no_file(client: MakeClient, tmp_path: Path) -> None:
    for telemetry in (client(), client(enabled=False)):
        telemetry.counter("exports").inc()
        telemetry.gauge("connections").set(1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), "many", None, 10**400])
def test_a_wrong_amount_is_ignored(client: MakeClient, scripted_server: ScriptedServer, amount: Any) -> None:
    telemetry = client()
    telemetry.counter("exports").inc(amount)
    telemetry.gauge("connections").set(amount if amount != -1 else "x")  # type: ignore[arg-type]
    assert telemetry.report_now().sent
    assert snapshots(scripted_server) == [{}]


def test_a_script_counts_without_start(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    for _ in range(2):
        run_host(HOST + "exports.inc(2); print(telemetry.report_now())", scripted_server.url, tmp_path)
    assert snapshots(scripted_server) == [{"exports": 2}, {"exports": 4}]


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
    assert snapshots(scripted_server) == [{"pool.open": 6, "is_busy": 3, "documents": 9}]


def test_two_applications_in_one_directory_are_two_reporters(
    scripted_server: ScriptedServer, client: MakeClient
) -> None:
    first, second = client(), client(app_name="Billing")
    for telemetry, amount in ((first, 3), (second, 4)):
        telemetry.counter("exports").inc(amount)
        assert telemetry.report_now().sent
    assert snapshots(scripted_server) == [{"exports": 3}, {"exports": 4}]
    assert len({body["instance_id"] for body in scripted_server.bodies("/v1/register")}) == 2


class Unreadable(dict[object, object]):
    def items(self) -> Any:
        raise RuntimeError("it is gone")


@pytest.mark.parametrize(
    ("value", "warned"),
    [
        (10**400, "open is left out: the number is too large"),
        (2**1010, "open is left out: it is not a number"),
        (float("nan"), "open is left out: it is not a finite number"),
        ("seven", "open is left out: it is not a number"),
        ([7], "open is left out: it is not a number"),
        (object(), "open is left out: object is not JSON"),
        (Unreadable(), "? is left out: RuntimeError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_bad_value_of_a_per_process_provider_costs_itself_only(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture, value: object, warned: str
) -> None:
    telemetry = client()
    telemetry.provider(lambda: {"pool": {"open": value, "idle": Decimal(3)}}, per_process=True)
    for _ in range(2):
        assert telemetry.report_now().sent
    assert snapshots(scripted_server) == [{"pool.idle": 3}] * 2
    assert sum(warned in record.getMessage() for record in caplog.records if record.levelname == "WARNING") == 1


class UnreadableMapping(Mapping[object, object]):
    def __getitem__(self, _: object) -> object:
        raise KeyError

    def __iter__(self) -> Iterator[object]:
        raise RuntimeError("it is gone")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("per_process", [False, True])
def test_a_provider_may_return_an_unreadable_mapping(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture, per_process: bool
) -> None:
    telemetry = client()

    def metrics() -> Any:
        return UnreadableMapping()

    telemetry.provider(metrics, per_process=per_process)
    assert [telemetry.report_now().sent for _ in range(2)] == [True, True]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (warning,) = warnings
    assert warning.endswith("metrics failed (RuntimeError): its metrics are left out")


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
