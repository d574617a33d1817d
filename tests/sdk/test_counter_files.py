"""The counters' file, which other programs and the host itself may truncate, remove, fill the disk of, or close."""

import logging
from pathlib import Path
from typing import Any

import pytest

from shm_sdk.counters import COUNT, MAX_RECORDS, Counters, sum_up
from shm_sdk.state import State
from tests.support.scripted_server import ScriptedServer
from tests.support.sdk_hosts import run_host

HOST = """
import os, pathlib, resource, subprocess, sys, threading, time
import shm_sdk
data = pathlib.Path(sys.argv[2])
telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1", data_dir=data, collect_system_metrics=False)
exports, open_now = telemetry.counter("exports"), telemetry.gauge("open_now")
telemetry.start(first_report_after=600)
exports.inc(3)
open_now.set(7)
(file,) = (data / "ledger_telemetry/counters").iterdir()
"""
REPORT = """
print(telemetry.report_now(60).sent)
telemetry.stop()
"""


def report(scripted_server: ScriptedServer, tmp_path: Path, program: str) -> Any:
    """What a host that runs the program and then reports has sent."""
    assert run_host(HOST + program + REPORT, scripted_server.url, tmp_path / "data").splitlines()[-1] == "True"
    return scripted_server.requests[-1].json["metrics"]


@pytest.mark.parametrize(
    "damage",
    [
        "os.truncate(file, 0); exports.inc()",
        "exports.inc(); os.truncate(file, 0)",
        "os.truncate(file, 100); exports.inc()",
        "os.truncate(file, 1 << 20); exports.inc()",
        "file.write_bytes(bytes(file.stat().st_size)); exports.inc()",
        "file.unlink(); exports.inc()",
        "import shutil; shutil.rmtree(data); exports.inc()",
    ],
)
def test_a_damaged_counter_file_loses_no_count(scripted_server: ScriptedServer, tmp_path: Path, damage: str) -> None:
    """A file that is mapped into memory would kill its process as soon as another program has truncated it."""
    assert report(scripted_server, tmp_path, damage) == {"exports": 4, "open_now": 7}


def test_what_was_counted_before_the_start_is_stored_by_it(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """The process may end before its thread has run."""
    program = """
import os, sys, shm_sdk
telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1", data_dir=sys.argv[2], collect_system_metrics=False)
telemetry.counter("exports").inc(3)
telemetry.start()
os._exit(0)
"""
    run_host(program, scripted_server.url, tmp_path / "data")
    run_host(program.replace("os._exit(0)", "telemetry.report_now(60)"), scripted_server.url, tmp_path / "data")
    assert scripted_server.requests[-1].json["metrics"] == {"exports": 6}


TRUNCATED_AGAIN_AND_AGAIN = """
truncating = subprocess.Popen([sys.executable, "-c", f'''
import os, time
ends = time.monotonic() + 1
while time.monotonic() < ends:
    os.truncate({str(file)!r}, 0)
'''])
counted = 0
while truncating.poll() is None:
    exports.inc()
    counted += 1
exports.inc(1e6 - counted)
"""


def test_a_host_survives_a_program_that_truncates_all_the_time(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    assert report(scripted_server, tmp_path, TRUNCATED_AGAIN_AND_AGAIN) == {"exports": 1e6 + 3, "open_now": 7}


FULL_DISK = """
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))  # every write to a file fails
exports.inc()
telemetry.counter("imports").inc(2)
os.truncate(file, 0)
exports.inc()
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
"""


def test_a_full_disk_loses_no_count(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    assert report(scripted_server, tmp_path, FULL_DISK) == {"exports": 5, "open_now": 7, "imports": 2}


# The descriptors of the SDK become those of the host's files.
CLOSED_FILES = """
own = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
os.closerange(3, 256)
files = [open(data / f"file-{number}", "wb+", buffering=0) for number in range(12)]
exports.inc()
telemetry.report_now(60)
telemetry.stop()
import gc; gc.collect()
if os.fork() == 0:
    exports.inc()
    print([os.fstat(file.fileno()).st_size for file in files] == [0] * 12, flush=True)
    os._exit(0)
os.wait()
print([os.fstat(file.fileno()).st_size for file in files] == [0] * 12)
"""


def test_a_host_that_closes_all_files_keeps_its_own(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """As a daemon does: the numbers of the SDK's descriptors are free for the files that it opens."""
    output = run_host(HOST + CLOSED_FILES + REPORT, scripted_server.url, tmp_path / "data")
    assert output.splitlines() == ["True", "True", "True"]
    assert scripted_server.requests[-1].json["metrics"] == {"exports": 5, "open_now": 7}


def test_counters_beyond_the_limit_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters(lambda: tmp_path)
    with caplog.at_level(logging.WARNING):
        for number in range(MAX_RECORDS + 2):
            counters.change(f"order_{number}", COUNT, 1)
    assert len(sum_up(tmp_path, State(), [])) == MAX_RECORDS
    assert [record.getMessage() for record in caplog.records] == [
        f"telemetry counters beyond {MAX_RECORDS} in one process are left out"
    ]
