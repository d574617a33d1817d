"""Real servers and pools: each install reports once, and counts every event, whatever its processes do."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted_server import ScriptedServer

# The hosts count for some seconds. test_one_reporter.py holds the same promises with processes of its own.
pytestmark = pytest.mark.long

# A WSGI and ASGI application that counts its requests. The poll is shortened, so that a takeover takes seconds.
HOST = """
import os, sys
import shm_sdk, shm_sdk.sender

shm_sdk.sender.TAKEOVER_POLL_S = 1.0
telemetry = shm_sdk.Client(os.environ["URL"], "Ledger", "1", data_dir=os.environ["DATA"], collect_system_metrics=False)
requests = telemetry.counter("requests")
telemetry.start(first_report_after=float(os.environ.get("DELAY", "4")))

def wsgi(environ, start_response):
    requests.inc()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        requests.inc()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    folder: Path, scripted_server: ScriptedServer, *command: str, **environment: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """A host in a process group of its own, killed at the end."""
    (folder / "host.py").write_text(HOST)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "URL": scripted_server.url, "DATA": str(folder / "data"), **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def get(port: int, times: int) -> set[str]:
    """Sends requests; returns the processes that have answered."""
    pids: set[str] = set()
    deadline = time.monotonic() + 60
    while times:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as response:
                pids.add(response.read().decode())
                times -= 1
        except (urllib.error.URLError, ConnectionError):  # it starts, or replaces a worker
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return pids


def wait_for_total(scripted_server: ScriptedServer, total: int) -> list[Any]:
    """The counts that were sent, once the total was."""
    deadline = time.monotonic() + 60
    while True:
        counts = [body["metrics"].get("requests", 0) for body in bodies(scripted_server)]
        if total in counts:
            return counts
        assert time.monotonic() < deadline, counts
        time.sleep(0.05)


def bodies(scripted_server: ScriptedServer) -> list[Any]:
    return [request.json for request in scripted_server.requests if request.path == "/v1/snapshot"]


def python_m(module: str) -> list[str]:
    return [sys.executable, "-m", module]


@pytest.mark.parametrize(
    "options", [(), ("--preload",), ("--worker-class", "gevent")], ids=["workers", "preload", "gevent"]
)
def test_gunicorn(scripted_server: ScriptedServer, tmp_path: Path, options: tuple[str, ...]) -> None:
    port = free_port()
    bind = ("--bind", f"127.0.0.1:{port}", "--workers", "4", *options, "host:wsgi")
    with running(tmp_path, scripted_server, *python_m("gunicorn"), *bind):
        get(port, 40)
        assert wait_for_total(scripted_server, 40) == [40]
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]


def test_gunicorn_with_workers_that_live_shorter_than_the_first_delay(
    scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    port = free_port()
    options = ("--bind", f"127.0.0.1:{port}", "--workers", "2", "--max-requests", "5", "host:wsgi")
    state = tmp_path / "data/ledger_telemetry/state.json"
    state.parent.mkdir(parents=True)
    state.write_text(f'{{"next_report_at": {time.time() + 9}}}')
    with running(tmp_path, scripted_server, *python_m("gunicorn"), *options, DELAY="600"):
        assert len(get(port, 30)) > 2
        # Each worker asks for a first report in ten minutes, and lives for five requests.
        deadline = time.monotonic() + 60
        while not bodies(scripted_server) and time.monotonic() < deadline:
            get(port, 1)
            time.sleep(1)  # a worker lives for some seconds, longer than a report takes on a busy machine
    assert bodies(scripted_server)[0]["metrics"]["requests"] >= 30
    assert scripted_server.paths.count("/v1/register") == 1


def test_uvicorn_workers(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    port = free_port()
    options = ("--port", str(port), "--workers", "3", "--log-level", "warning", "host:asgi")
    with running(tmp_path, scripted_server, *python_m("uvicorn"), *options, DELAY="6"):
        get(port, 40)
        assert wait_for_total(scripted_server, 40)[-1] == 40
    assert scripted_server.paths.count("/v1/register") == 1


@pytest.mark.parametrize(
    "mode",
    [("--master",), ("--master", "--py-call-uwsgi-fork-hooks"), ()],
    ids=["without hooks", "with hooks", "without a master"],
)
def test_uwsgi(scripted_server: ScriptedServer, tmp_path: Path, mode: tuple[str, ...]) -> None:
    port = free_port()
    options = ("--http-socket", f"127.0.0.1:{port}", "--processes", "3", "--enable-threads", *mode)
    python = ("--virtualenv", sys.prefix, "--module", "host:wsgi")
    program = Path(sys.executable).with_name("uwsgi")
    with running(tmp_path, scripted_server, str(program), *options, *python, DELAY="5"):
        get(port, 40)
        assert wait_for_total(scripted_server, 40)[-1] == 40
    assert scripted_server.paths.count("/v1/register") == 1


TASKS = """
from celery import Celery
from host import requests, telemetry

app = Celery(broker="memory://")
app.conf.update(
    broker_url="filesystem://", worker_max_tasks_per_child=1, worker_send_task_events=False,
    broker_transport_options={"data_folder_in": "queue", "data_folder_out": "queue"},
)

@app.task
def work():
    import email.message, http.client, json, nacl.signing, ssl, urllib.request
    requests.inc()
"""


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_celery(scripted_server: ScriptedServer, tmp_path: Path, pool: str) -> None:
    """With prefork, a task has a child of its own, forked while the first report is made, and imports what that does.

    With gevent, the SDK's threads are greenlets.
    """
    command = python_m("celery")
    (tmp_path / "queue").mkdir()
    (tmp_path / "tasks.py").write_text(TASKS)
    send = "import tasks; [tasks.work.delay() for _ in range(20)]"
    options = (
        "-A",
        "tasks",
        "worker",
        "--pool",
        pool,
        "--concurrency",
        "2",
        "--without-gossip",
        "--without-mingle",
    )
    with running(tmp_path, scripted_server, *command, *options, "--loglevel", "WARNING", DELAY="0"):
        environment = {
            **os.environ,
            "URL": scripted_server.url,
            "DATA": str(tmp_path / "other"),
            "SHM_TELEMETRY": "off",
        }
        subprocess.run([sys.executable, "-c", send], cwd=tmp_path, env=environment, check=True, timeout=60)
        deadline = time.monotonic() + 90
        while count_tasks(tmp_path) < 20:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        scripted_server.wait_for("/v1/snapshot")
    assert scripted_server.paths.count("/v1/register") == 1


def count_tasks(folder: Path) -> float:
    """What the install has counted, read as the sender does."""
    from shm_sdk.counters import sum_up
    from shm_sdk.state import StateFile

    shared = folder / "data/ledger_telemetry"
    return sum_up(shared, StateFile(shared).load(), []).get("requests", 0)


POOL = """
import multiprocessing, os, sys, time

def work(number):
    from host import requests
    requests.inc()
    return number

if __name__ == "__main__":
    from host import telemetry
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        pool.map(work, range(60))
        time.sleep(8)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(scripted_server: ScriptedServer, tmp_path: Path, method: str) -> None:
    (tmp_path / "pool.py").write_text(POOL)
    with running(tmp_path, scripted_server, sys.executable, "pool.py", method):
        assert wait_for_total(scripted_server, 60) == [60]
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]


def test_the_reloader_of_django(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """The host starts the SDK by itself, in the reloader's parent and in its child: they are one reporter."""
    program = """
import sys
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
from host import requests

def index(request):
    requests.inc()
    return HttpResponse("ok")

urlpatterns = [path("", index)]
settings.configure(DEBUG=True, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="a test")
if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
    (tmp_path / "manage.py").write_text(program)
    port = free_port()
    with running(tmp_path, scripted_server, sys.executable, "manage.py", "runserver", str(port)):
        get(port, 7)
        assert wait_for_total(scripted_server, 7) == [7]
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]


def test_the_reloader_of_flask(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """The reloader's parent and its child both run the module: they are one reporter."""
    program = """
from flask import Flask
from host import requests
app = Flask(__name__)

@app.get("/")
def index():
    requests.inc()
    return "ok"
"""
    (tmp_path / "site.txt").touch()
    (tmp_path / "web.py").write_text(program)
    port = free_port()
    command = (*python_m("flask"), "--app", "web", "run", "--debug", "--port", str(port))
    with running(tmp_path, scripted_server, *command):
        get(port, 7)
        assert wait_for_total(scripted_server, 7) == [7]
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]
