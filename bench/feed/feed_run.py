"""One run: snapshots are sent at a fixed rate until all subscribers have received them; and the baseline's run.

Server, PostgreSQL, sender and subscribers are processes of one machine; CPU time is measured for each of them.
"""

import math
import statistics
import time
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.feed.broadcaster import BroadcastPlan, broadcast
from bench.feed.sender import Load, SendResult, send
from bench.feed.subscribers import TIMEOUT_S, ReceiveResult, SubscriberPlan, subscribe
from bench.support.child_process import ChildProcess, run_child
from bench.support.errors import InvalidRun
from bench.support.fleet import Fleet
from bench.support.machine import cpu_seconds, machine_cpu_seconds
from bench.support.memory import resident_mib, track_resident
from bench.support.server import RunningServer

SAMPLE_SIZE = 10  # subscribers that record when each message arrived
SUBSCRIBE_TIMEOUT_S = 120  # for all subscribers
PROCESS_TIMEOUT_S = 90  # in addition to the time that a process was given
RELEASE_DELAY_S = 1.0  # after which freed memory has been returned to the system
LAST_CURSOR_SQL = "SELECT coalesce(max(cursor), 0) FROM instances"


@dataclass(frozen=True, slots=True)
class ServerMemory:
    """MiB of the server's processes: without subscribers, with idle ones, samples under load, and after they left."""

    before: float
    idle: float
    under_load: list[float]
    after: float

    @property
    def growth(self) -> float:
        """From the first third of the samples under load to the last, as a fraction."""
        third = max(1, len(self.under_load) // 3)
        first, last = statistics.median(self.under_load[:third]), statistics.median(self.under_load[-third:])
        return last / first - 1


@dataclass(frozen=True, slots=True)
class FeedRun:
    """Messages sent and received, with latencies and CPU time."""

    sent: SendResult
    received: ReceiveResult
    latencies_ms: list[float]  # sorted, from each 202 to each subscriber of the sample; infinite if not received
    seconds: float  # until all have received everything
    cpu: dict[str, float]  # seconds by process; `others` is the rest of the machine

    @property
    def rate(self) -> float:
        """Snapshots acknowledged a second."""
        return self.sent.acknowledged / (self.sent.ended_ns - self.sent.started_ns) * 1e9

    @property
    def messages_per_s(self) -> float:
        """Received by all subscribers together."""
        return self.received.messages / self.seconds

    @property
    def acknowledged_p99_ms(self) -> float:
        """The p99 of the time from sending a snapshot to its 202."""
        return _quantile(sorted(self.sent.latencies_ns), 0.99) / 1e6

    def latency_quantile_ms(self, quantile: float) -> float:
        """A quantile of the sample's latencies."""
        return _quantile(self.latencies_ms, quantile)

    def cores(self, *parts: str) -> float:
        """Cores that these processes used together."""
        return sum(self.cpu[part] for part in parts) / self.seconds

    def us_per_message(self, part: str, without: float = 0.0) -> float:
        """CPU time of a process per message, less `without`: its CPU seconds for the same load without messages."""
        return (self.cpu[part] - without) / self.received.messages * 1e6 if self.received.messages else math.nan


class _CpuTimes:
    """CPU time of processes by name, from now on."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._started_at = self._read()

    def elapsed(self) -> dict[str, float]:
        """In seconds; `others` is the rest of the machine."""
        now = self._read()
        elapsed = {part: now[part] - self._started_at[part] for part in now}
        machine = elapsed.pop("machine")
        return elapsed | {"others": max(0.0, machine - sum(elapsed.values()))}

    def _read(self) -> dict[str, float]:
        return {part: cpu_seconds(pid) for part, pid in self._pids.items()} | {"machine": machine_cpu_seconds()}


def measure_server(
    server: RunningServer, fleet: Fleet, folder: Path, rate: float, seconds: float, readers: int, stalled: int = 0
) -> tuple[FeedRun, ServerMemory]:
    """Raises InvalidRun if a response was not 202, or a snapshot was not stored or not received."""
    stored_before = server.count_snapshots()
    requests = fleet.sign(folder / "snapshots", int(rate * seconds) + 1, 1)
    plan = SubscriberPlan(server.port, server.token, readers, min(SAMPLE_SIZE, readers), stalled)
    load = Load(server.port, requests.path.with_name(f"{requests.path.name}.0"), rate, seconds)
    before = resident_mib(server.pid)
    with run_child(subscribe, plan) as subscribers, run_child(send, load) as sender:
        subscribers.receive(SUBSCRIBE_TIMEOUT_S)
        sender.receive(SUBSCRIBE_TIMEOUT_S)
        requests.delete()
        idle = resident_mib(server.pid)
        pids = {"server": server.pid, "postgres": server.postmaster, "sender": sender.pid}
        pids["subscribers"] = subscribers.pid
        with track_resident(server.pid) as under_load:
            cpu = _CpuTimes(pids)
            sender.send("start")
            sent: SendResult = sender.receive(seconds + PROCESS_TIMEOUT_S)
            _stop_discarding(subscribers)
            sender.send("send the last snapshot")
            sender.receive(PROCESS_TIMEOUT_S)
            subscribers.send(int(server.fetch_value(LAST_CURSOR_SQL)))
            received: ReceiveResult = subscribers.receive(TIMEOUT_S + PROCESS_TIMEOUT_S)
            elapsed = cpu.elapsed()
    time.sleep(RELEASE_DELAY_S)
    memory = ServerMemory(before, idle, under_load, resident_mib(server.pid))
    run = summarize(sent, received, len(fleet.installs), elapsed)
    if sent.refused or server.count_snapshots() - stored_before != sent.acknowledged + 1:
        raise InvalidRun(
            f"{sent.acknowledged} snapshots were acknowledged, {sent.refused} refused, and one more sent, "
            f"{server.count_snapshots() - stored_before} are stored."
        )
    return run, memory


def measure_baseline(example: bytes, rate: float, seconds: float, readers: int) -> FeedRun:
    """The baseline: messages like `example` over plain sockets to the same number of subscribers."""
    with run_child(broadcast, BroadcastPlan(example, readers, rate, seconds)) as baseline:
        plan = SubscriberPlan(baseline.receive(SUBSCRIBE_TIMEOUT_S), "none", readers, min(SAMPLE_SIZE, readers))
        with run_child(subscribe, plan) as subscribers:
            subscribers.receive(SUBSCRIBE_TIMEOUT_S)
            pids = {"baseline": baseline.pid, "subscribers": subscribers.pid}
            cpu = _CpuTimes(pids)
            baseline.send("start")
            sent: SendResult = baseline.receive(seconds + PROCESS_TIMEOUT_S)
            _stop_discarding(subscribers)
            baseline.send("one more")
            subscribers.send(baseline.receive(PROCESS_TIMEOUT_S))
            received: ReceiveResult = subscribers.receive(TIMEOUT_S + PROCESS_TIMEOUT_S)
            elapsed = cpu.elapsed()
    return summarize(sent, received, 1, elapsed)


def _quantile(ordered: Sequence[float], quantile: float) -> float:
    """A quantile of sorted values."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] if ordered else math.nan


def _stop_discarding(subscribers: ChildProcess) -> None:
    """From here on all subscribers read the cursors of their messages."""
    subscribers.send("stop discarding")
    subscribers.receive(PROCESS_TIMEOUT_S)


def summarize(sent: SendResult, received: ReceiveResult, installs: int, cpu: dict[str, float]) -> FeedRun:
    """Raises InvalidRun if a subscriber reached the last cursor without receiving every snapshot."""
    if received.arrivals and not received.example:
        raise InvalidRun("No subscriber of the sample received a message about an instance.")
    latencies = delivery_latencies(sent.acknowledgements, received.arrivals, installs)
    if not received.behind and not received.closed and latencies and math.isinf(latencies[-1]):
        raise InvalidRun("A subscriber reached the last cursor and did not receive every snapshot.")
    return FeedRun(sent, received, latencies, (received.ended_ns - sent.started_ns) / 1e9, cpu)


def delivery_latencies(acknowledged: "array[int]", samples: "Iterable[array[int]]", installs: int) -> list[float]:
    """Milliseconds from each 202 until each subscriber received that snapshot or a newer one of the same install.

    `acknowledged` has pairs of a snapshot's number and the time of its 202, `samples` the arrivals at each subscriber.
    Install `number % installs` sent snapshot `number`. Infinite if it was not received.
    """
    latencies = []
    for arrivals in samples:
        received: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for number, at_ns in zip(arrivals[::2], arrivals[1::2], strict=True):
            numbers, times = received[number % installs]
            numbers.append(number)
            times.append(at_ns)
        for number, at_ns in zip(acknowledged[::2], acknowledged[1::2], strict=True):
            numbers, times = received[number % installs]
            position = bisect_left(numbers, number)
            latencies.append((times[position] - at_ns) / 1e6 if position < len(times) else math.inf)
    return sorted(latencies)
