"""Metrics of the server itself: counters, histograms and gauges that each worker updates in shared memory.

They contain no data of a request: the labels are names from the code, of handlers, refusal codes and pools. An update
takes under a microsecond, because a whole snapshot takes two hundred. `shm.server.prometheus` exports the metrics,
`shm.server.gauge_sampler` sets the gauges.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

from shm.core.errors import Refusal
from shm.core.shared_memory import WorkerSlot, WorkerSlots

UNKNOWN_HANDLER = "http"  # the label of requests that are refused before their handler is known

# From the duration of a health check to the usual timeout of a proxy.
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_SIZE_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)  # the last is SHM_BATCH by default
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric in Prometheus's sense. `bounds` are the upper bounds of a histogram's buckets.

    Counters and histograms are sums over the workers; gauges have a value for each worker, unless `is_global`.
    """

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    is_global: bool = False


REQUESTS = Metric("shm_requests", "counter", "Answered requests.", ("handler", "status"))
REQUEST_SECONDS = Metric(
    "shm_request_duration_seconds",
    "histogram",
    "From the complete request to the complete response.",
    ("handler",),
    REQUEST_BUCKETS_S,
)
REFUSALS = Metric("shm_refusals", "counter", "Refused requests and refused members of backlogs.", ("code",))
BATCH_SIZE = Metric(
    "shm_intake_batch_snapshots", "histogram", "Snapshots written in one transaction.", (), BATCH_SIZE_BUCKETS
)
BATCH_WAIT = Metric(
    "shm_intake_batch_wait_seconds",
    "histogram",
    "Time that the first snapshot of a batch waited until the write began.",
    (),
    REQUEST_BUCKETS_S,
)
BATCH_COMMIT = Metric(
    "shm_intake_batch_commit_seconds",
    "histogram",
    "From the beginning of a batch's write to its COMMIT.",
    (),
    REQUEST_BUCKETS_S,
)
QUEUE_LENGTH = Metric("shm_intake_queue_snapshots", "gauge", "Snapshots that wait for a batch.")
FEED_SUBSCRIBERS = Metric("shm_feed_subscribers", "gauge", "Subscribers of the change feed.")
SLOWEST_FEED_LAG = Metric(
    "shm_feed_slowest_lag_seconds", "gauge", "Age of the oldest change that the slowest subscriber has not received."
)
MEDIAN_FEED_LAG = Metric("shm_feed_median_lag_seconds", "gauge", "The same for the median subscriber.")
LOOP_LAG = Metric("shm_event_loop_lag_seconds", "histogram", "Delay of the event loop.", (), LAG_BUCKETS_S)
CONNECTIONS = Metric("shm_database_connections", "gauge", "Connections to PostgreSQL, used or free.", ("pool", "state"))
WAITING_STATEMENTS = Metric(
    "shm_database_statements_waiting", "gauge", "Statements that wait for a connection.", ("pool",)
)
CLIENT_CONNECTIONS = Metric("shm_client_connections", "gauge", "Open connections of clients.")
REQUEST_BYTES = Metric(
    "shm_request_bytes",
    "gauge",
    "Bytes of requests in memory, which SHM_MAX_READING limits: incomplete headers, and bodies that are not answered.",
)
RESPONSE_BYTES = Metric(
    "shm_response_bytes",
    "gauge",
    "Bytes of responses in memory that their clients have not read yet, which SHM_MAX_UNREAD limits.",
)
DATABASE_BYTES = Metric("shm_database_size_bytes", "gauge", "Size of the database on disk.", is_global=True)
DISK_LIMIT = Metric(
    "shm_database_limit_bytes",
    "gauge",
    "Size that the database can reach: SHM_MAX_DISK, or the space of an embedded PostgreSQL's disk.",
    is_global=True,
)
DATABASE_GROWTH = Metric(
    "shm_database_growth_bytes_per_day", "gauge", "Growth of the database in the last week.", is_global=True
)
FULL_IN = Metric(
    "shm_database_full_seconds",
    "gauge",
    "Time until the limit is reached, at the growth of the last week.",
    is_global=True,
)
DISK_FREE = Metric(
    "shm_disk_free_bytes", "gauge", "Free space of the disk that the data directory is on.", is_global=True
)
OPEN_FILES = Metric("shm_open_files", "gauge", "Open files of the process, connections included.")
OPEN_FILES_LIMIT = Metric("shm_open_files_limit", "gauge", "Limit of open files of the process.")
INSTALLS = Metric("shm_installs", "gauge", "Installs of all applications by status.", ("status",), is_global=True)
BACKGROUND_AGE = Metric(
    "shm_background_round_age_seconds",
    "gauge",
    "Time since the background jobs last completed a round, in whichever process.",
    is_global=True,
)
SERIES_LAG = Metric(
    "shm_series_lag_seconds",
    "gauge",
    "Age of the oldest stored snapshot that charts do not include yet.",
    is_global=True,
)

METRICS = (
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
    LOOP_LAG,
    CLIENT_CONNECTIONS,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    CONNECTIONS,
    WAITING_STATEMENTS,
    DATABASE_BYTES,
    DISK_LIMIT,
    DATABASE_GROWTH,
    FULL_IN,
    DISK_FREE,
    OPEN_FILES,
    OPEN_FILES_LIMIT,
    INSTALLS,
    SERIES_LAG,
    BACKGROUND_AGE,
)


class Counter:
    """A count for each combination of label values."""

    def __init__(self, slot: WorkerSlot, metric: Metric) -> None:
        self._slot = slot
        self._metric = metric
        self._cells = slot.cells
        self._first_cells: dict[tuple[str | int, ...], int] = {}

    def increment(self, *labels: str | int) -> None:
        """Adds 1."""
        cell = self._first_cells.get(labels)
        if cell is None:
            cell = self._first_cells[labels] = self._slot.allocate(self._metric.name, tuple(map(str, labels)))
        self._cells[cell] += 1.0


class Histogram:
    """For each combination of label values: a cell for each bucket, one for larger values, and one for the sum."""

    def __init__(self, slot: WorkerSlot, metric: Metric) -> None:
        self._slot = slot
        self._metric = metric
        self._cells = slot.cells
        self._bounds = metric.bounds
        self._first_cells: dict[tuple[str, ...], int] = {}
        if not metric.labels:  # exported as zero from the start: no value yet differs from an unknown value
            self._allocate(())

    def observe(self, value: float, *labels: str) -> None:
        """Adds a value."""
        first = self._first_cells.get(labels)
        if first is None:
            first = self._allocate(labels)
        cells = self._cells
        cells[first + bisect_left(self._bounds, value)] += 1.0
        cells[first + len(self._bounds) + 1] += value

    def _allocate(self, labels: tuple[str, ...]) -> int:
        first = self._first_cells[labels] = self._slot.allocate(self._metric.name, labels, len(self._bounds) + 2)
        return first


class Gauge:
    """A current value for each combination of label values."""

    def __init__(self, slot: WorkerSlot, metric: Metric) -> None:
        self._slot = slot
        self._metric = metric

    def set(self, value: float, *labels: str) -> None:
        """Replaces the value."""
        self._slot.cells[self._slot.allocate(self._metric.name, labels)] = value


class Instruments:
    """The metrics of one worker, in its slot of the shared memory. Workers are counted from 0."""

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
        self.client_connections = Gauge(slot, CLIENT_CONNECTIONS)
        self.request_bytes = Gauge(slot, REQUEST_BYTES)
        self.response_bytes = Gauge(slot, RESPONSE_BYTES)
        self.connections = Gauge(slot, CONNECTIONS)
        self.waiting_statements = Gauge(slot, WAITING_STATEMENTS)
        self.database_bytes = Gauge(slot, DATABASE_BYTES)
        self.disk_limit = Gauge(slot, DISK_LIMIT)
        self.database_growth = Gauge(slot, DATABASE_GROWTH)
        self.full_in = Gauge(slot, FULL_IN)
        self.disk_free = Gauge(slot, DISK_FREE)
        self.open_files = Gauge(slot, OPEN_FILES)
        self.open_files_limit = Gauge(slot, OPEN_FILES_LIMIT)
        self.installs = Gauge(slot, INSTALLS)
        self.series_lag = Gauge(slot, SERIES_LAG)
        self.background_age = Gauge(slot, BACKGROUND_AGE)
        self._requests = Counter(slot, REQUESTS)
        self._request_seconds = Histogram(slot, REQUEST_SECONDS)

    def record_early_refusal(self, refusal: Refusal) -> None:
        """Counts a request that was refused before its handler was known."""
        self._requests.increment(UNKNOWN_HANDLER, refusal.status.value)
        self.refusals.increment(refusal.code)

    def record_response(self, handler: str, status: int, seconds: float) -> None:
        """Counts an answered request, `seconds` after it was complete."""
        self._requests.increment(handler, status)
        self._request_seconds.observe(seconds, handler)
