"""The console bench finds its way through a real console, and prints each figure beside its aim."""

from pathlib import Path

import pytest

from tests.support.bench_program import run_bench
from tests.support.ssh import NEEDS_CLIENT


@pytest.mark.long
def test_the_quick_console_bench_prints_each_row_and_target(postgres_dir: Path) -> None:
    lines = [line.strip() for line in run_bench("console", postgres_dir, "--quick", "--sizes", "300").splitlines()]
    assert sum(line.startswith("300  ") for line in lines) == 1
    assert sum(line.startswith(("met ", "not met ")) for line in lines) == 8


@pytest.mark.long
@NEEDS_CLIENT
def test_the_quick_bench_over_ssh_prints_each_row(postgres_dir: Path) -> None:
    lines = [line.strip() for line in run_bench("console.over_ssh", postgres_dir, "--quick").splitlines()]
    rows = [line.split() for line in lines if line.startswith(("0  ", "12  ", "1,000  "))]
    assert [len(row) for row in rows] == [6, 6, 6]
    assert all(float(cell.replace(",", "")) > 0 for row in rows[1:] for cell in row[:-1])
    assert sum(line.startswith(("met ", "not met ")) for line in lines) == 5
