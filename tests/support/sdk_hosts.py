"""Hosts of the SDK as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

REPORT = "import sys, shm_sdk; print(shm_sdk.Client(sys.argv[1], 'Ledger', '1', data_dir=sys.argv[2]).report_now())"


def report_in_subprocess(url: str, data_dir: Path, program: str = REPORT, **environment: str) -> str:
    """The outcome of one report to this server, as text."""
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, url, str(data_dir)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    return completed.stdout
