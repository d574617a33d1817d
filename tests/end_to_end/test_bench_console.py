"""The console bench finds its way through a real console, and prints each figure beside its aim."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ssh import NEEDS_CLIENT

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.mark.long
def test_the_quick_console_bench_prints_each_row_and_target(postgres_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.console", "--quick", "--sizes", "300", "--folder", str(postgres_dir)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert sum(line.startswith("300  ") for line in lines) == 1
    assert sum(line.startswith(("met ", "not met ")) for line in lines) == 8
    assert list(postgres_dir.iterdir()) == []


@pytest.mark.long
@NEEDS_CLIENT
def test_the_quick_bench_over_ssh_prints_each_row(postgres_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.console.over_ssh", "--quick", "--folder", str(postgres_dir)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    rows = [line.split() for line in lines if line.startswith(("0  ", "12  ", "1,000  "))]
    assert [len(row) for row in rows] == [6, 6, 6]
    assert all(float(cell.replace(",", "")) > 0 for row in rows[1:] for cell in row[:-1])
    assert sum(line.startswith(("met ", "not met ")) for line in lines) == 5
    assert list(postgres_dir.iterdir()) == []
