"""One run: snapshots are sent at a rate while subscribers listen, and all are waited for; and the same of the floor.

Server, PostgreSQL, sender and subscribers are processes of one machine, and each one's processor time is told apart.
"""

import math
import multiprocessing
import statistics
import time
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.feed.broadcaster import Programme, broadcast
from bench.feed.sender import Load, Sent, send
from bench.feed.subscribers import PATIENCE_S, Audience, Told, subscribe
from bench.support.errors import Fault
from bench.support.fleet import Fleet
from bench.support.machine import busy_seconds, cpu_seconds
from bench.support.memory import followed, resident_mib
from bench.support.server import RunningServer

SAMPLE = 10  # subscribers that note when each message came
OPEN_LIMIT_S = 120  # for all of them to subscribe
ANSWER_LIMIT_S = 90  # beyond what a process was told to take
END_LIMIT_S = 5
RELEASED_S = 1.0  # after which memory has been given back, if it is
NEWEST = "SELECT coalesce(max(cursor), 0) FROM instances"


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of the server's processes: with no subscriber, with all idle, at each look, and when they have gone."""

    before: float
    idle: float
    seen: list[float]
    after: float

    @property
    def growth(self) -> float:
        """From the first third of the load to its last, as a share."""
        third = max(1, len(self.seen) // 3)
        first, last = statistics.median(self.seen[:third]), statistics.median(self.seen[-third:])
        return last / first - 1


@dataclass(frozen=True, slots=True)
class Run:
    """What was sent and told, and what it took."""

    sent: Sent
    told: Told
    waits: list[float]  # ms from each 202 to each of the sample, in order; infinite for what never came
    seconds: float  # until everybody was told
    cpu: dict[str, float]  # seconds of each part, and of `others`: what else went on in the machine

    @property
    def rate(self) -> float:
        """Snapshots acknowledged a second."""
        return self.sent.acknowledged / (self.sent.ended_ns - self.sent.begun_ns) * 1e9

    @property
    def messages_a_second(self) -> float:
        """Told to all subscribers together."""
        return self.told.messages / self.seconds

    @property
    def answered_ms(self) -> float:
        """By when 99 of 100 snapshots were answered 202, from when they were sent."""
        return _at(sorted(self.sent.took_ns), 0.99) / 1e6

    def within(self, share: float) -> float:
        """By how many milliseconds that share of the sample's messages had come."""
        return _at(self.waits, share)

    def cores(self, *parts: str) -> float:
        """How many cores these parts took together."""
        return sum(self.cpu[part] for part in parts) / self.seconds

    def us_a_message(self, part: str, without: float = 0.0) -> float:
        """Processor time of a part for each message, apart from what it takes `without` them, in seconds."""
        return (self.cpu[part] - without) / self.told.messages * 1e6 if self.told.messages else math.nan


class _Cpu:
    """Processor time of some processes, by their part, from now on."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._begun = self._now()

    def taken(self) -> dict[str, float]:
        """In seconds; `others` is what the machine did for nobody of them."""
        now = self._now()
        taken = {part: now[part] - self._begun[part] for part in now}
        machine = taken.pop("machine")
        return taken | {"others": max(0.0, machine - sum(taken.values()))}

    def _now(self) -> dict[str, float]:
        return {part: cpu_seconds(pid) for part, pid in self._pids.items()} | {"machine": busy_seconds()}


class _Process:
    """One that was started here, and what it says."""

    def __init__(self, pipe: Connection, pid: int) -> None:
        self._pipe = pipe
        self.pid = pid

    def tell(self, what: object) -> None:
        self._pipe.send(what)

    def hear(self, limit_s: float) -> Any:
        try:
            if self._pipe.poll(limit_s):
                return self._pipe.recv()
        except EOFError:
            raise Fault("A process of the bench ended early; what it said stands above.") from None
        raise Fault(f"A process of the bench said nothing for {limit_s:.0f} s.")


@contextmanager
def _started(work: Callable[..., None], *arguments: object) -> Iterator[_Process]:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=work, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    assert process.pid is not None
    try:
        yield _Process(here, process.pid)
    finally:
        process.terminate()
        process.join(END_LIMIT_S)


def run_the_server(
    server: RunningServer, fleet: Fleet, folder: Path, rate: float, seconds: float, readers: int, unread: int = 0
) -> tuple[Run, Memory]:
    """Raises Fault where an answer was not 202, a snapshot is not stored, or one was never told to somebody."""
    stored = server.count_snapshots()
    requests = fleet.sign(folder / "snapshots", int(rate * seconds) + 1, 1)
    audience = Audience(server.port, server.token, readers, min(SAMPLE, readers), unread)
    load = Load(server.port, requests.path.with_name(f"{requests.path.name}.0"), rate, seconds)
    before = resident_mib(server.pid)
    with _started(subscribe, audience) as subscribers, _started(send, load) as sender:
        subscribers.hear(OPEN_LIMIT_S)
        sender.hear(OPEN_LIMIT_S)
        requests.discard()
        idle = resident_mib(server.pid)
        pids = {"server": server.pid, "postgres": server.postmaster, "sender": sender.pid}
        pids["subscribers"] = subscribers.pid
        with followed(server.pid) as seen:
            cpu = _Cpu(pids)
            sender.tell("begin")
            sent: Sent = sender.hear(seconds + ANSWER_LIMIT_S)
            _begin_to_read(subscribers)
            sender.tell("the last one")
            sender.hear(ANSWER_LIMIT_S)
            subscribers.tell(int(server.fetch_value(NEWEST)))
            told: Told = subscribers.hear(PATIENCE_S + ANSWER_LIMIT_S)
            taken = cpu.taken()
    time.sleep(RELEASED_S)
    memory = Memory(before, idle, seen, resident_mib(server.pid))
    run = accounted(sent, told, len(fleet.installs), taken)
    if sent.refused or server.count_snapshots() - stored != sent.acknowledged + 1:
        raise Fault(
            f"{sent.acknowledged} snapshots were acknowledged, {sent.refused} refused, and one more sent, "
            f"{server.count_snapshots() - stored} are stored."
        )
    return run, memory


def run_the_floor(example: bytes, rate: float, seconds: float, readers: int) -> Run:
    """Plain sockets: writes messages like `example` to as many subscribers."""
    with _started(broadcast, Programme(example, readers, rate, seconds)) as floor:
        audience = Audience(floor.hear(OPEN_LIMIT_S), "none", readers, min(SAMPLE, readers))
        with _started(subscribe, audience) as subscribers:
            subscribers.hear(OPEN_LIMIT_S)
            pids = {"floor": floor.pid, "subscribers": subscribers.pid}
            cpu = _Cpu(pids)
            floor.tell("begin")
            sent: Sent = floor.hear(seconds + ANSWER_LIMIT_S)
            _begin_to_read(subscribers)
            floor.tell("one more")
            subscribers.tell(floor.hear(ANSWER_LIMIT_S))
            told: Told = subscribers.hear(PATIENCE_S + ANSWER_LIMIT_S)
            taken = cpu.taken()
    return accounted(sent, told, 1, taken)


def _at(in_order: Sequence[float], share: float) -> float:
    """A quantile of what is in order."""
    return in_order[min(len(in_order) - 1, int(len(in_order) * share))] if in_order else math.nan


def _begin_to_read(subscribers: _Process) -> None:
    """So that all of them see the cursor of whatever comes from now on."""
    subscribers.tell("read")
    subscribers.hear(ANSWER_LIMIT_S)


def accounted(sent: Sent, told: Told, installs: int, cpu: dict[str, float]) -> Run:
    """Raises Fault where it does not add up."""
    if told.notes and not told.example:
        raise Fault("No subscriber of the sample received a message about an instance.")
    found = waits(sent.notes, told.notes, installs)
    if not told.behind and not told.closed and found and math.isinf(found[-1]):
        raise Fault("A subscriber reached the last cursor, and was not told of every snapshot.")
    return Run(sent, told, found, (told.by_ns - sent.begun_ns) / 1e9, cpu)


def waits(acknowledged: "array[int]", notes: "Iterable[array[int]]", installs: int) -> list[float]:
    """Milliseconds from each 202 until each subscriber was told that snapshot or a newer one of the same install.

    Install `number % installs` sent snapshot `number`. What never came took forever.
    """
    found = []
    for noted in notes:
        told: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for number, at_ns in zip(noted[::2], noted[1::2], strict=True):
            numbers, times = told[number % installs]
            numbers.append(number)
            times.append(at_ns)
        for number, at_ns in zip(acknowledged[::2], acknowledged[1::2], strict=True):
            numbers, times = told[number % installs]
            place = bisect_left(numbers, number)
            found.append((times[place] - at_ns) / 1e6 if place < len(times) else math.inf)
    return sorted(found)
