"""The SDK never stops its host: while it forks, in its signal handlers, and with a network or provider that hangs."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from shm_sdk import Client, Result
from shm_sdk.forking import load_reporting_modules
from tests.support.parameters import long_after
from tests.support.scripted_server import ScriptedServer, run_scripted_server, tunnel
from tests.support.sdk_hosts import run_host
from tests.support.tls import Tls

MakeClient = Callable[..., Client]


FORKING_POOL = """
import multiprocessing, sys, shm_sdk

def task(number):
    import email.message, http.client, json, nacl.signing, ssl, urllib.request
    return number

telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1", data_dir=sys.argv[2])
with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
    telemetry.start(first_report_after=0)
    print(sum(pool.imap_unordered(task, range(30))))
"""


def test_a_host_may_fork_while_the_sdk_imports(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """A child that inherits a held import lock would wait for ever for a module of its own."""
    assert run_host(FORKING_POOL, scripted_server.url, tmp_path) == "435\n"


WATCHED_REPORT = """
import sys, threading, shm_sdk, shm_sdk.forking

class Watch:
    outside = []

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if shm_sdk.forking.import_lock._importer != threading.get_ident():
            cls.outside.append(name)
        if name == sys.argv[3]:
            raise ModuleNotFoundError(name)

sys.modules.pop(sys.argv[3], None)
telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1", data_dir=sys.argv[2], consent="opt-in")
sys.meta_path.insert(0, Watch)  # is asked for each module that is not imported yet
telemetry.provider(lambda: {"jobs": 1})
telemetry.counter("exports").inc()
telemetry.status()
telemetry.turn_on()
telemetry.preview()
assert telemetry.report_now().sent
telemetry.start(first_report_after=0)
telemetry.stop(flush=True, timeout=30)
print(Watch.outside)
"""


@pytest.mark.parametrize("missing", ["nothing", "psutil"])
@pytest.mark.parametrize("scheme", ["http", "https", "https through a proxy"])
def test_a_report_imports_nothing_outside_the_import_lock(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, missing: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", tls.authority)
    with (
        run_scripted_server(None if scheme == "http" else tls.context) as scripted_server,
        run_scripted_server() as proxy,
    ):
        if "proxy" in scheme:
            port = scripted_server.listener.getsockname()[1]
            proxy.script(f"localhost:{port}", *[tunnel(port)] * 2)
            monkeypatch.setenv("https_proxy", proxy.url)
        assert run_host(WATCHED_REPORT, scripted_server.url, tmp_path, missing) == "[]\n"


STOPPED_BY_SIGNALS = """
import signal, sys, shm_sdk
telemetry = shm_sdk.Client("http://127.0.0.1:1", "Ledger", "1", data_dir=sys.argv[1])
calls = []

def handle(*_):
    telemetry.stop()
    telemetry.start(first_report_after=100)
    telemetry.stop()
    telemetry.report_now(timeout=0.01)
    calls.append(1)

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
while len(calls) < 300:
    telemetry.start(first_report_after=100)
    telemetry.stop()
    telemetry.report_now(timeout=0.01)
signal.setitimer(signal.ITIMER_REAL, 0)
print("ended")
"""


def test_every_method_may_be_called_in_a_signal_handler(tmp_path: Path) -> None:
    """The handler runs in the main thread between two bytecodes; a lock that it waits for is never released."""
    assert run_host(STOPPED_BY_SIGNALS, tmp_path) == "ended\n"


FORKED_DURING_START = """
import os, sys, threading, shm_sdk
telemetry = shm_sdk.Client("http://127.0.0.1:1", "Ledger", "1", data_dir=sys.argv[1])
ended = threading.Event()

def restart():
    while not ended.is_set():
        telemetry.start(first_report_after=100)
        telemetry.stop()

threading.Thread(target=restart).start()
for _ in range(80):
    child = os.fork()
    if child == 0:
        telemetry.stop()
        telemetry.start(first_report_after=100)
        telemetry.stop(flush=True, timeout=0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
ended.set()
print("ended")
"""


def test_a_child_forked_during_start_is_not_blocked(tmp_path: Path) -> None:
    assert run_host(FORKED_DURING_START, tmp_path) == "ended\n"


def test_a_stop_during_start_wins(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = client()
    start = threading.Thread.start

    def start_and_stop(thread: threading.Thread) -> None:
        telemetry.stop()  # as a signal handler would at this moment
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_and_stop)
    telemetry.start(first_report_after=100)
    for thread in threading.enumerate():
        if thread.name == "shm-telemetry":
            thread.join(60)
    assert [thread for thread in threading.enumerate() if thread.name == "shm-telemetry"] == []


@pytest.fixture
def dead_addresses() -> Iterator[list[Any]]:
    """Six addresses of one port that never accept a connection: their queues are full."""
    with ExitStack() as stack:
        first = stack.enter_context(socket.socket())
        first.bind(("127.0.0.11", 0))
        port = first.getsockname()[1]
        listeners = [first]
        for number in range(12, 17):
            listeners.append(stack.enter_context(socket.socket()))
            listeners[-1].bind((f"127.0.0.{number}", port))
        for listener in listeners:
            listener.listen(0)
            for _ in range(3):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
        yield [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname()) for listener in listeners]


def resolve_to(monkeypatch: pytest.MonkeyPatch, addresses: list[Any]) -> None:
    """Makes the system's resolver answer each name with these addresses."""

    def getaddrinfo(*_: object, flags: int = 0, **__: object) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not an address")
        return addresses

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_dead_addresses_share_one_deadline(
    client: MakeClient, dead_addresses: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = client(server_url=f"http://metrics.example.com:{dead_addresses[0][4][1]}")
    load_reporting_modules()
    resolve_to(monkeypatch, dead_addresses)
    started_at = time.monotonic()
    assert telemetry.report_now(timeout=1.2).result is Result.FAILED
    assert 1 < time.monotonic() - started_at < 6  # less than a deadline for each of the six


def test_a_live_address_after_dead_ones_is_reached(
    client: MakeClient, scripted_server: ScriptedServer, dead_addresses: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = (socket.AF_INET, socket.SOCK_STREAM, 6, "", scripted_server.listener.getsockname())
    resolve_to(monkeypatch, [*dead_addresses, live])
    assert client().report_now(timeout=3).sent


def test_a_resolver_that_hangs_ends_with_the_timeout(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = client(server_url="http://metrics.example.com")
    released = threading.Event()
    real = socket.getaddrinfo

    def hang(host: str, port: int, *, type: int, flags: int) -> list[Any]:
        if not flags & socket.AI_NUMERICHOST:
            released.wait(60)
        return [*real(host, port, type=type, flags=socket.AI_NUMERICHOST)]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        load_reporting_modules()
        for _ in range(3):
            started_at = time.monotonic()
            assert telemetry.report_now(timeout=0.3).reason.endswith("no answer in time")
            assert time.monotonic() - started_at < 30  # the resolver hangs for longer
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("shm-telemetry-resolver") == 1
    finally:
        released.set()


def test_a_dripping_proxy_ends_with_the_timeout(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(connection: socket.socket) -> bool:
        while True:
            connection.sendall(b"H")
            time.sleep(0.05)

    with run_scripted_server() as proxy:
        proxy.script("metrics.example.com:443", drip)
        monkeypatch.setenv("https_proxy", proxy.url)
        telemetry = client(server_url="https://metrics.example.com")
        load_reporting_modules()
        started_at = time.monotonic()
        assert telemetry.report_now(timeout=0.5).reason.endswith("no answer in time")
        assert time.monotonic() - started_at < 30  # the proxy never ends


def test_a_hanging_provider_is_skipped_until_it_returns(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = client()
    released = threading.Event()

    @telemetry.provider
    def first() -> dict[str, int]:
        return {"first": 1}

    @telemetry.provider
    def hangs() -> dict[str, int]:
        released.wait(60)
        return {"hanging": 1}

    @telemetry.provider
    def last() -> dict[str, int]:
        return {"last": 1}

    load_reporting_modules()
    before = threading.active_count()
    for _ in range(4):
        assert telemetry.report_now(timeout=2).sent
        assert scripted_server.requests[-1].json["metrics"] == {"first": 1, "last": 1}
    deadline = time.monotonic() + 60  # a thread that has resolved the server's name may still be ending
    while threading.active_count() > before + 1 + len(scripted_server.connections):
        assert time.monotonic() < deadline, "more than one hanging call and the server's threads"
        time.sleep(0.01)
    assert caplog.text.count("has not returned within") == 1
    released.set()
    deadline = time.monotonic() + 60
    while "hanging" not in str(scripted_server.requests[-1].json["metrics"]) and time.monotonic() < deadline:
        assert telemetry.report_now().sent
    assert scripted_server.requests[-1].json["metrics"] == {"first": 1, "hanging": 1, "last": 1}


def test_a_worker_survives_a_hanging_provider(
    client: MakeClient, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shm_sdk.providers.PROVIDER_TIMEOUT_S", 0.2)
    telemetry = client()
    released = threading.Event()

    @telemetry.provider
    def hangs() -> dict[str, int]:
        released.wait(60)
        return {}

    telemetry.start(first_report_after=0)
    scripted_server.wait_for("/v1/snapshot")
    released.set()


def test_a_report_stops_at_its_deadline_whatever_the_providers_do(client: MakeClient) -> None:
    telemetry = client()
    released = threading.Event()
    for _ in range(20):
        telemetry.provider(lambda: {"jobs": 1} if released.wait(60) else {})
    load_reporting_modules()
    started_at = time.monotonic()
    telemetry.report_now(timeout=1)
    assert time.monotonic() - started_at < 30  # less than one provider's wait
    released.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_imports_and_forks_do_not_deadlock_with_logging() -> None:
    """The hook is registered after that of `logging`; in the reverse order each could wait for the other."""
    program = """
import logging, os, sys, threading
import shm_sdk.forking
ended = threading.Event()

def log_during_imports():
    while not ended.is_set():
        with shm_sdk.forking.import_lock:
            logging.getLogger(f"name{id(object())}")

threading.Thread(target=log_during_imports).start()
for _ in range(80):
    child = os.fork()
    if child == 0:
        logging.getLogger("child").debug("alive")
        os._exit(0)
    os.waitpid(child, 0)
ended.set()
print("ended")
"""
    assert run_host(program) == "ended\n"


FORKED_WHILE_IMPORTING = """
import os, sys, threading, shm_sdk

class Fork:
    child = None

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == sys.argv[3] and cls.child is None:
            cls.child = os.fork()  # as in a signal handler that runs at this moment

telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1", data_dir=sys.argv[2], strict=True)
sys.meta_path.insert(0, Fork)
telemetry.counter("exports").inc()
telemetry.start()
telemetry.counter("exports").inc()
sent = telemetry.report_now().result.value
assert Fork.child is not None
if Fork.child == 0:
    os._exit(0 if sent == "sent" else 3)
_, status = os.waitpid(Fork.child, 0)
print(sent, os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize(
    "module", long_after(2, ["shm_sdk.counters", "shm_sdk.state", "shm_sdk.sender", "shm_sdk.reporter"])
)
def test_a_signal_handler_may_fork_within_an_import(
    scripted_server: ScriptedServer, tmp_path: Path, module: str
) -> None:
    """Parent and child go on with the statement that it has interrupted."""
    assert run_host(FORKED_WHILE_IMPORTING, scripted_server.url, tmp_path, module) == "sent 0\n"


WAITS_FOR_SIGNALS = """
import os, signal, subprocess, sys, threading, shm_sdk

telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1", data_dir=sys.argv[2])
masks = []

@telemetry.provider
def metrics():
    child = "import signal; print(*signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    masks.append(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout)
    return {"orders": 1}

telemetry.start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(os.getpid(), signal.SIGTERM)
print(signal.sigwait([signal.SIGTERM]).name)
telemetry.stop(flush=True, timeout=30)
print(masks)
"""


def test_a_host_may_wait_for_signals(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """The system delivers them to no thread of the SDK. A process that a provider starts can be terminated."""
    assert run_host(WAITS_FOR_SIGNALS, scripted_server.url, tmp_path) == "SIGTERM\n['\\n']\n"


@pytest.mark.parametrize(
    "members",
    [{}, {"worker_id": lambda: 0}, {"worker_id": lambda: 1 / 0}],
    ids=["nothing", "a worker", "a function that raises"],
)
def test_a_stand_in_for_uwsgi_raises_nowhere(
    client: MakeClient, monkeypatch: pytest.MonkeyPatch, members: dict[str, object]
) -> None:
    """uWSGI itself has only some of its functions without a master process."""
    stand_in = ModuleType("uwsgi")
    vars(stand_in).update(members)
    monkeypatch.setitem(sys.modules, "uwsgi", stand_in)
    client(strict=True).start()
