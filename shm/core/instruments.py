"""How the server itself is: what is counted and measured of it, by the worker that it happens in.

Nothing here knows who asked. Labels are names out of the code: of handlers, codes, pools. Counting costs under a
microsecond, because a snapshot's whole way costs two hundred. `exposition` shows it, `sampler` fills the gauges.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

from shm.core.errors import Refusal
from shm.core.shared_memory import WorkerSlot, WorkerSlots

UNKNOWN_HANDLER = "http"  # instead of a handler's name

# From a health check to what a proxy waits for at most.
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_SIZE_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)  # the last is SHM_BATCH by default
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as monitoring systems know it. Histograms have the upper `bounds` of their buckets.

    Counters and histograms are sums over the workers; gauges have a value for each worker, unless `is_global`.
    """

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    is_global: bool = False


REQUESTS = Metric("shm_requests", "counter", "Requests that were answered.", ("handler", "status"))
REQUEST_SECONDS = Metric(
    "shm_request_duration_seconds",
    "histogram",
    "From when a request is there until its answer is written.",
    ("handler",),
    REQUEST_BUCKETS_S,
)
REFUSALS = Metric("shm_refusals", "counter", "Requests, and members of backlogs, that were refused.", ("code",))
BATCH_SIZE = Metric(
    "shm_intake_batch_snapshots", "histogram", "Snapshots that were written together.", (), BATCH_SIZE_BUCKETS
)
BATCH_WAIT = Metric(
    "shm_intake_batch_wait_seconds",
    "histogram",
    "How long the first snapshot of a batch had waited when its writing began.",
    (),
    REQUEST_BUCKETS_S,
)
BATCH_COMMIT = Metric(
    "shm_intake_batch_commit_seconds",
    "histogram",
    "From the beginning of a batch to its COMMIT.",
    (),
    REQUEST_BUCKETS_S,
)
QUEUE_LENGTH = Metric("shm_intake_queue_snapshots", "gauge", "Snapshots that wait for a batch.")
FEED_SUBSCRIBERS = Metric("shm_feed_subscribers", "gauge", "Subscribers of the change feed.")
SLOWEST_FEED_LAG = Metric(
    "shm_feed_slowest_lag_seconds", "gauge", "For how long the slowest subscriber has not been told of a change."
)
MEDIAN_FEED_LAG = Metric("shm_feed_median_lag_seconds", "gauge", "The same of the subscriber in the middle.")
LOOP_LAG = Metric(
    "shm_event_loop_lag_seconds", "histogram", "How late the event loop comes to what is due.", (), LAG_BUCKETS_S
)
CONNECTIONS = Metric(
    "shm_database_connections", "gauge", "Connections to PostgreSQL, in use or free.", ("pool", "state")
)
WAITING_STATEMENTS = Metric(
    "shm_database_statements_waiting", "gauge", "Statements that wait for a connection.", ("pool",)
)
DATABASE_BYTES = Metric("shm_database_size_bytes", "gauge", "Size of the database on its disk.", is_global=True)
SERIES_LAG = Metric(
    "shm_series_lag_seconds",
    "gauge",
    "For how long the oldest snapshot that charts do not tell yet has been stored.",
    is_global=True,
)

METRICS = (
    *(
        REQUESTS,
        REQUEST_SECONDS,
        REFUSALS,
        BATCH_SIZE,
        BATCH_WAIT,
        BATCH_COMMIT,
        QUEUE_LENGTH,
        FEED_SUBSCRIBERS,
        SLOWEST_FEED_LAG,
        MEDIAN_FEED_LAG,
    ),
    *(LOOP_LAG, CONNECTIONS, WAITING_STATEMENTS, DATABASE_BYTES, SERIES_LAG),
)


class Counter:
    """Counts, for each of its labels."""

    def __init__(self, slot: WorkerSlot, metric: Metric) -> None:
        self._slot = slot
        self._metric = metric
        self._cells = slot.cells
        self._first_cells: dict[tuple[str | int, ...], int] = {}

    def increment(self, *labels: str | int) -> None:
        """One more."""
        cell = self._first_cells.get(labels)
        if cell is None:
            cell = self._first_cells[labels] = self._slot.allocate(self._metric.name, tuple(map(str, labels)))
        self._cells[cell] += 1.0


class Histogram:
    """A cell for each bucket, one for what is above them all, and one for the sum."""

    def __init__(self, slot: WorkerSlot, metric: Metric) -> None:
        self._slot = slot
        self._metric = metric
        self._cells = slot.cells
        self._bounds = metric.bounds
        self._first_cells: dict[tuple[str, ...], int] = {}
        if not metric.labels:  # shown from the start: nothing yet is something else than nothing known
            self._claim(())

    def observe(self, value: float, *labels: str) -> None:
        """One more of that size."""
        first = self._first_cells.get(labels)
        if first is None:
            first = self._claim(labels)
        cells = self._cells
        cells[first + bisect_left(self._bounds, value)] += 1.0
        cells[first + len(self._bounds) + 1] += value

    def _claim(self, labels: tuple[str, ...]) -> int:
        first = self._first_cells[labels] = self._slot.allocate(self._metric.name, labels, len(self._bounds) + 2)
        return first


class Gauge:
    """What stands at a moment, for each of its labels."""

    def __init__(self, slot: WorkerSlot, metric: Metric) -> None:
        self._slot = slot
        self._metric = metric

    def set(self, value: float, *labels: str) -> None:
        """This it is now."""
        self._slot.cells[self._slot.allocate(self._metric.name, labels)] = value


class Instruments:
    """Those of one worker, `number` from 0 on, in its slot of the `numbers` that all of them share."""

    def __init__(self, slots: WorkerSlots, worker: int = 0) -> None:
        slot = slots.slot(worker)
        self.slots = slots
        self.worker = worker
        self.refusals = Counter(slot, REFUSALS)
        self.batch_size = Histogram(slot, BATCH_SIZE)
        self.batch_wait = Histogram(slot, BATCH_WAIT)
        self.batch_commit = Histogram(slot, BATCH_COMMIT)
        self.loop_lag = Histogram(slot, LOOP_LAG)
        self.queue_length = Gauge(slot, QUEUE_LENGTH)
        self.feed_subscribers = Gauge(slot, FEED_SUBSCRIBERS)
        self.slowest_feed_lag = Gauge(slot, SLOWEST_FEED_LAG)
        self.median_feed_lag = Gauge(slot, MEDIAN_FEED_LAG)
        self.connections = Gauge(slot, CONNECTIONS)
        self.waiting_statements = Gauge(slot, WAITING_STATEMENTS)
        self.database_bytes = Gauge(slot, DATABASE_BYTES)
        self.series_lag = Gauge(slot, SERIES_LAG)
        self._requests = Counter(slot, REQUESTS)
        self._request_seconds = Histogram(slot, REQUEST_SECONDS)

    def record_early_refusal(self, refusal: Refusal) -> None:
        """A request was refused before it was clear what it asks for."""
        self._requests.increment(UNKNOWN_HANDLER, refusal.status.value)
        self.refusals.increment(refusal.code)

    def record_response(self, handler: str, status: int, seconds: float) -> None:
        """A request has its answer, so many seconds after it was there."""
        self._requests.increment(handler, status)
        self._request_seconds.observe(seconds, handler)
