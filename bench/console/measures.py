"""What is measured of one console: its start, its answers to keys, and what it costs while nothing is typed."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.console.bare_app import WORD
from bench.console.terminal import Terminal, open_console, open_program
from bench.support.errors import InvalidRun
from bench.support.machine import cpu_seconds
from bench.support.memory import resident_mib
from bench.support.server import RunningServer

SIZE = (120, 40)
SETTLE_S = 5.0  # after the first rows: the other pages, counts and percentiles arrive
KEY_PAUSE_S = 0.15  # between two keys, so that a slow answer is not counted as that of the next key
KEY_TIMEOUT_S = 5.0
MOVE_S = 0.5  # for these keys, before a round of those that are measured
ROUND = "jjkk"
TO_THE_MIDDLE = "g" + 12 * "j"  # on the first or the last row a key may have no answer, and the cursor's row may rise


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the start of the process: to the first line, to the first rows; of the baseline to its word."""

    paint_s: float
    rows_s: float
    bare_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """To a key: milliseconds until its frame, and those of CPU time that the program spent meanwhile.

    The rest is spent waiting: for a free core, for the next frame, or for the terminal.
    """

    ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a console for some seconds."""

    cpu_percent: float  # of a core
    bytes_per_s: float
    resident_mib: float


def measure_start(server: RunningServer, *arguments: str) -> Start:
    """Starts the baseline and the console once each."""
    with open_program([sys.executable, "-m", "bench.console.bare_app"], SIZE, {}) as bare:
        bare_s = bare.wait_until(lambda: any(WORD in line for line in bare.lines)) - bare.started_at
    with open_console(server.url, server.token, SIZE, *arguments) as terminal:
        paint_s = terminal.wait_until(lambda: "SHM" in terminal.lines[0]) - terminal.started_at
        rows_s = terminal.wait_until(lambda: terminal.has_rows) - terminal.started_at
    return Start(paint_s, rows_s, bare_s)


def measure_cost(terminal: Terminal, seconds: float) -> Cost:
    """Reads the terminal for some seconds."""
    pid, cpu, read = terminal.process.pid, cpu_seconds(terminal.process.pid), terminal.bytes_read
    terminal.read_for(seconds)
    return Cost((cpu_seconds(pid) - cpu) / seconds * 100, (terminal.bytes_read - read) / seconds, resident_mib(pid))


def measure_keys(terminal: Terminal, count: int) -> list[Answer]:
    """The answer to each key: the frame with the cursor on another instance.

    The cursor stays on its instance when rows move, so another instance is the answer to a key and to nothing else.
    """
    answers: list[Answer] = []
    while len(answers) < count:
        terminal.type_key(TO_THE_MIDDLE)
        terminal.read_for(MOVE_S)
        answers += [_measure_key(terminal, key) for key in ROUND]
    return answers[:count]


def _measure_key(terminal: Terminal, key: str) -> Answer:
    before = terminal.cursor_id
    if before is None:
        raise InvalidRun("No row is under the cursor:\n" + "\n".join(terminal.lines))
    cpu_ms = _main_thread_ms(terminal.process.pid)
    pressed_at = terminal.type_key(key)
    shown_at = terminal.wait_until(lambda: terminal.cursor_id not in (before, None), KEY_TIMEOUT_S)
    cpu_ms = _main_thread_ms(terminal.process.pid) - cpu_ms
    terminal.read_for(KEY_PAUSE_S)
    return Answer((shown_at - pressed_at) * 1e3, cpu_ms)


def _main_thread_ms(pid: int) -> float:
    """CPU time of a program's main thread, to the microsecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def format_answers(answers: Sequence[Answer]) -> str:
    """p50 and p99 of the milliseconds."""
    return format_percentiles([answer.ms for answer in answers])


def format_percentiles(values: Sequence[float]) -> str:
    """p50 and p99."""
    return f"{quantile(values, 50):.0f}/{quantile(values, 99):.0f}"


def p99_ms(answers: Sequence[Answer]) -> float:
    """The 99th percentile of the milliseconds."""
    return quantile([answer.ms for answer in answers], 99)


def quantile(values: Sequence[float], hundredth: int) -> float:
    """A percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[hundredth - 1]
