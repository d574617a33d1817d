"""The common parts of the benches' commands: a temporary folder, exit statuses, lists of numbers."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.support import machine
from bench.support.errors import InvalidRun
from bench.support.report import print_line
from shm.core.signals import exit_on_signals


def run_in_folder(parent: Path, measure: Callable[[Path], None], *, is_durable: bool = True) -> int:
    """Calls `measure` with a temporary folder below `parent`. Returns the exit status.

    0 if everything was measured, whether or not a target was met; 1 if a figure would be wrong; 2 if the measurement
    `is_durable` and the folder is in memory.
    """
    started = time.monotonic()
    with exit_on_signals(), tempfile.TemporaryDirectory(prefix="shm-bench-", dir=parent) as name:
        folder = Path(name)
        if is_durable and machine.file_system(folder) in machine.IN_MEMORY_FILE_SYSTEMS:
            print(f"{parent} is in memory, where nothing is durable; choose another --folder.", file=sys.stderr)
            return 2
        try:
            measure(folder)
        except InvalidRun as error:
            print(f"No figures: {error}", file=sys.stderr)
            return 1
    print_line(f"took {time.monotonic() - started:.0f} s")
    return 0


def parse_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers that are separated by commas."""
    return tuple(int(number) for number in text.split(","))
