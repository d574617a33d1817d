"""The examples, in processes of their own, with the real frameworks. Only the server's address is replaced."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from shm_sdk.testing import ShmServer

EXAMPLES = Path(__file__).parents[1] / "examples"
START_TIMEOUT_S = 60


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed")


def prepare(name: str, server: ShmServer, directory: Path, **changes: str) -> Path:
    """A copy of an example that reports to the test server."""
    text = (EXAMPLES / f"{name}.py").read_text()
    for old, new in {"https://metrics.example.com": server.url, **changes}.items():
        assert text.count(old) == 1, f"{name}.py no longer has {old} once"
        text = text.replace(old, new)
    (directory / f"{name}.py").write_text(text)
    return directory


@contextmanager
def running(directory: Path, *command: str) -> Iterator["subprocess.Popen[str]"]:
    """A process, ended by SIGTERM after the context."""
    log = directory / "output.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=directory, stdout=output, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        except BaseException:
            sys.stderr.write(log.read_text())
            raise
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def get(port: int, path: str = "/invoices") -> None:
    """Requests a page, as soon as the example serves it."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_listening(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as response:
        assert response.status == 200


def is_listening(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_a_script(shm_server: ShmServer, tmp_path: Path) -> None:
    prepare("script", shm_server, tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "the work of the script\ntelemetry: stored\n"), done.stderr
    shm_server.assert_reported(invoices_sent=1284, backup_enabled=True)


def test_an_asyncio_service(shm_server: ShmServer, tmp_path: Path) -> None:
    prepare("asyncio_service", shm_server, tmp_path)
    with running(tmp_path, "-W", "error", "asyncio_service.py"):
        deadline = time.monotonic() + START_TIMEOUT_S
        while "ready" not in (tmp_path / "output.log").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
    shm_server.assert_reported(open_connections=12)
    assert (tmp_path / "output.log").read_text() == "ready\n"


@needs("fastapi", "uvicorn")
def test_fastapi_reports_at_its_end(shm_server: ShmServer, tmp_path: Path) -> None:
    prepare("fastapi_app", shm_server, tmp_path)
    port = free_port()
    with running(tmp_path, "-m", "uvicorn", "fastapi_app:app", "--port", str(port)):
        get(port)
    shm_server.assert_reported(invoices_served=1, currencies=3)


@needs("flask")
def test_flask(shm_server: ShmServer, tmp_path: Path) -> None:
    prepare("flask_app", shm_server, tmp_path, **{"telemetry.start()": "telemetry.start(first_report_after=0.5)"})
    port = free_port()
    with running(tmp_path, "-m", "flask", "--app", "flask_app", "run", "--port", str(port)):
        get(port)
        shm_server.assert_reported(START_TIMEOUT_S, sys_os=sys.platform, currencies=3)


QUEUE = """broker="filesystem://", changes={
    "broker_transport_options": {"data_folder_in": "queue", "data_folder_out": "queue"}
}"""
SEND = "import celery_app; [celery_app.send_invoice.delay() for _ in range(3)]"


@needs("celery")
def test_celery(shm_server: ShmServer, tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    prepare("celery_app", shm_server, tmp_path, **{'broker="redis://localhost"': QUEUE})
    subprocess.run([sys.executable, "-c", SEND], cwd=tmp_path, check=True, timeout=60)
    shm_server.assert_nothing_sent()
    worker = ("-m", "celery", "-A", "celery_app", "worker", "--concurrency", "2", "--loglevel", "INFO")
    with running(tmp_path, *worker, "--without-gossip", "--without-mingle"):
        deadline = time.monotonic() + START_TIMEOUT_S
        while (tmp_path / "output.log").read_text().count(" succeeded in ") < 3:
            assert time.monotonic() < deadline, (tmp_path / "output.log").read_text()
            time.sleep(0.05)
    shm_server.assert_reported(invoices_sent=3)
    assert len(shm_server.installs) == 1


@needs("django")
def test_django_with_its_reloader(shm_server: ShmServer, tmp_path: Path) -> None:
    prepare("django_project", shm_server, tmp_path, **{'"app_name":': '"first_report_after": 0,\n        "app_name":'})
    port = free_port()
    with running(tmp_path, "django_project.py", "runserver", str(port)):
        get(port)
        shm_server.assert_reported(START_TIMEOUT_S, invoices_sent=1284)
    assert len(shm_server.installs) == 1


@needs("django")
def test_djangos_management_command(shm_server: ShmServer, tmp_path: Path) -> None:
    prepare("django_project", shm_server, tmp_path)

    def run(action: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "django_project.py", "telemetry", action],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    preview = run("preview")
    assert '"invoices_sent": 1284' in preview.stdout, preview.stderr
    shm_server.assert_nothing_sent()
    assert run("check").stdout == "sent, HTTP 202: stored.\n"
    assert "telemetry of Ledger is off.\n" in run("off").stdout
    assert run("check").returncode == 1


DJANGO_PROGRAM = """
import sys, threading
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["shm_sdk.django"], SHM={"app_name": "Ledger", "app_version": "1", "providers": %r})
import %s
django.setup()
from shm_sdk.django import get_client
threads = sorted(thread.name for thread in threading.enumerate())
print(threads, "ledger" in sys.modules, get_client().report_now().reason)
"""


@needs("django")
@pytest.mark.parametrize(
    ("module", "threads"), [("json", "['MainThread', 'shm-telemetry']"), ("pytest", "['MainThread']")]
)
def test_django_imports_providers_early_and_does_not_start_in_tests(
    shm_server: ShmServer, tmp_path: Path, module: str, threads: str
) -> None:
    (tmp_path / "ledger.py").write_text("def metrics():\n    return {'orders': 8}\n")
    program = DJANGO_PROGRAM % (["ledger.metrics", "ledger.missing", "missing.metrics"], module)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"{threads} True stored\n", done.stderr
    shm_server.assert_reported(orders=8)


@needs("django")
@pytest.mark.parametrize(
    ("arguments", "environment", "starts"),
    [
        (["/usr/bin/gunicorn", "ledger.wsgi"], {}, True),
        (["manage.py", "migrate"], {}, False),
        (["/venv/bin/django-admin", "shell"], {}, False),
        (["/lib/django/__main__.py", "check"], {}, False),
        (["manage.py", "runserver"], {}, False),
        (["manage.py", "runserver"], {"RUN_MAIN": "true"}, True),
        (["manage.py", "runserver", "--noreload"], {}, True),
    ],
)
def test_where_django_starts_reporting(arguments: list[str], environment: dict[str, str], starts: bool) -> None:
    from shm_sdk.django.apps import is_server

    assert is_server(arguments, environment) is starts


def test_every_example_is_tested() -> None:
    tests = Path(__file__).read_text()
    assert os.listdir(EXAMPLES)  # noqa: PTH208
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.stem}"' in tests
