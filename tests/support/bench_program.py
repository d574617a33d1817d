"""The benches as programs."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent


def run_bench(name: str, folder: Path, *arguments: str) -> str:
    """The output of a bench, which must end with success and leave nothing in its folder."""
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", *arguments, "--folder", str(folder)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout
