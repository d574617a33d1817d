"""What the kernel sees of a process that has turned telemetry off: no connection, and no file beyond the imports."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
import shm_sdk
telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1.4.2", data_dir=sys.argv[2], enabled=True)
telemetry.provider(lambda: {"orders": 8})
os.write(2, b"begin")
telemetry.start(first_report_after=0)
outcome = telemetry.report_now()
telemetry.stop(flush=True)
os.write(2, b"end")
print(outcome.result.value)
"""


def trace(tmp_path: Path, **environment: str) -> tuple[str, str]:
    """The result of a report, and the system calls between its begin and its end."""
    log = tmp_path / "strace.log"
    strace = ("strace", "-f", "-e", "trace=network,file,write", "-s", "8", "-o", str(log))
    done = subprocess.run(
        [*strace, sys.executable, "-c", PROGRAM, "http://127.0.0.1:9", str(tmp_path / "data")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip("this machine does not allow strace")
    return done.stdout.strip(), log.read_text().split('"begin"')[1].split('"end"')[0]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "environment", [{"DO_NOT_TRACK": "1"}, {"SHM_TELEMETRY": "'disabled'"}, {"SHM_TELEMETRY_LEDGER": "never"}], ids=str
)
def test_opting_out_makes_no_system_call_for_files_or_network(tmp_path: Path, environment: dict[str, str]) -> None:
    result, calls = trace(tmp_path, **environment)
    assert result == "off"
    assert (
        re.findall(r"^\d+\s+(?:open|mkdir|stat|socket|connect|sendto|unlink|rename)\w*\(.*", calls, re.MULTILINE) == []
    )


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_trace_records_a_client_that_reports(tmp_path: Path) -> None:
    """Shows that the test above can fail."""
    result, calls = trace(tmp_path)
    assert result == "failed"
    assert "connect(" in calls
    assert "metrics_identity.json" in calls
