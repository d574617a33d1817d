"""Ends and parts of an interpreter: the last report at its exit, and interpreters within a process."""

import os
import subprocess
import sys

import pytest

from shm_sdk.testing import ShmServer


def run_host(program: str, *arguments: str) -> str:
    """The output of a host program, which must end by itself."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


LAST_REPORT = """
import atexit, sys, shm_sdk
telemetry = shm_sdk.Client(app_name="Ledger", app_version="1", collect_system_metrics=False, strict=True)
telemetry.provider(lambda: {"orders": 8})
telemetry.start()
atexit.register(lambda: telemetry.stop(flush=True, timeout=30))
"""


def test_a_last_report_is_made_at_the_exit(shm_server: ShmServer) -> None:
    """Some versions of Python start no further thread then."""
    url = shm_server.url.replace("127.0.0.1", "localhost")  # a name, which is resolved in a thread
    assert run_host(f"import os; os.environ['SHM_SERVER_URL'] = {url!r}" + LAST_REPORT) == ""
    shm_server.assert_reported(orders=8)


WITHOUT_THREADS = """
import sys, threading, shm_sdk
telemetry = shm_sdk.Client(app_name="Ledger", app_version="1", collect_system_metrics=False, strict=True)
telemetry.provider(lambda: {"orders": threading.current_thread() is threading.main_thread()})

def start(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = start
telemetry.start()
print(telemetry.report_now().sent)
"""


def test_a_report_needs_no_further_thread(shm_server: ShmServer) -> None:
    url = shm_server.url.replace("127.0.0.1", "localhost")
    assert run_host(f"import os; os.environ['SHM_SERVER_URL'] = {url!r}" + WITHOUT_THREADS) == "True\n"
    shm_server.assert_reported(orders=True)


ISOLATED = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
isolated = interpreters.create()
interpreters.run_string(isolated, '''
import sys
sys.path = {path!r}
import shm_sdk
telemetry = shm_sdk.Client("http://127.0.0.1:1", "Ledger", "1")
telemetry.counter("orders").inc()
telemetry.start(first_report_after=0)
print(telemetry.report_now().result.value, flush=True)
telemetry.stop(flush=True)
print([name for name in ("ssl", "nacl", "cryptography") if name in sys.modules], flush=True)
''')
interpreters.destroy(isolated)
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters have a GIL of their own since Python 3.12")
def test_a_client_is_off_in_an_isolated_interpreter() -> None:
    """Modules that a report needs crash the process there, in some versions of Python. The developer is told once."""
    output = run_host(ISOLATED.format(path=sys.path))
    assert "create the Client in the main interpreter" in output
    assert "off\n[]\n" in output
