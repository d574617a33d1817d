"""The `shm` command as its users run it, with no other settings than a test says: conftest takes away the machine's."""

import os
import subprocess
import sys

SHM = (sys.executable, "-m", "shm.cli")
LIMIT_S = 60


def run_shm(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """To its end, with nothing to read."""
    return subprocess.run(
        [*SHM, *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
