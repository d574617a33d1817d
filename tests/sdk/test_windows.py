"""A system without `fcntl` and `fork`, such as Windows: the SDK reports from one process, and counts in it."""

from pathlib import Path

import pytest

from tests.support.scripted_server import ScriptedServer
from tests.support.sdk_hosts import report_in_subprocess

# What the modules of Windows lack. `import fcntl` raises ImportError, and the functions of `os` are not there.
HIDE = """
import os, sys
for name in ("fcntl", "pwd", "resource", "grp"):
    sys.modules[name] = None
for name in (
    "fork", "register_at_fork", "getuid", "geteuid", "getgid", "fchmod", "fchown", "statvfs", "fstatvfs", "sysconf",
    "sched_getaffinity", "uname", "posix_fadvise", "O_DIRECTORY", "O_NONBLOCK",
):
    if hasattr(os, name):
        delattr(os, name)
"""
HOST = """
import shm_sdk
telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1", data_dir=sys.argv[2])
telemetry.counter("exports").inc(3)
telemetry.gauge("connections").set(2)
telemetry.provider(lambda: {"jobs": 1})
telemetry.provider(lambda: {"mails": 4}, per_process=True)
"""


@pytest.mark.parametrize(
    "report",
    [
        "print(telemetry.report_now().result); telemetry.stop()",
        "telemetry.start(); telemetry.stop(flush=True, timeout=30); print('Result.SENT')",
    ],
    ids=["report_now", "start and flush"],
)
def test_a_system_without_fcntl_and_fork_reports(scripted_server: ScriptedServer, tmp_path: Path, report: str) -> None:
    assert report_in_subprocess(scripted_server.url, tmp_path, f"{HIDE}{HOST}{report}") == "Result.SENT\n"
    (body,) = scripted_server.bodies("/v1/snapshot")
    metrics = body["metrics"]
    assert isinstance(metrics, dict)
    assert {name: metrics[name] for name in ("exports", "connections", "jobs", "mails")} == {
        "exports": 3,
        "connections": 2,
        "jobs": 1,
        "mails": 4,
    }
    assert metrics["sys_os"]


def test_the_users_commands_work_there(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    program = (
        f"{HIDE}{HOST}print(telemetry.turn_off().is_done, telemetry.status().is_on, telemetry.report_now().result)"
    )
    assert report_in_subprocess(scripted_server.url, tmp_path, program) == "True False Result.OFF\n"
    assert scripted_server.requests == []
