"""The services that handlers use, one set for a server process, and the count of requests in flight."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Protocol

import tornado.websocket

from shm.analytics.applications import ApplicationStore
from shm.analytics.charts import ChartReader
from shm.analytics.events import EventLog
from shm.analytics.filtered_kpis import FilteredKpiReader
from shm.analytics.fleet_figures import FleetFigureReader
from shm.analytics.instance_pages import InstancePages
from shm.analytics.instances import InstanceReader
from shm.analytics.kpis import KpiReader
from shm.analytics.past_kpis import PastKpiReader
from shm.analytics.public_figures import PublicFigureReader
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.analytics.versions import VersionReader
from shm.auth.audit import AuditLog
from shm.auth.rate_limits import RateLimiter
from shm.auth.tokens import TokenStore
from shm.core.errors import Overloaded
from shm.core.instruments import Instruments
from shm.core.settings import Settings
from shm.db.database import Database
from shm.feed.hub import FeedHub
from shm.ingest.batch_writer import BatchWriter
from shm.ingest.bulk_changes import BulkChanges
from shm.ingest.erasure import Eraser
from shm.ingest.registry import Registry
from shm.server.connections import Connections
from shm.server.gauge_sampler import GaugeSampler
from shm.server.github_stars import GitHubStars
from shm.server.large_bodies import LargeBodies
from shm.server.prometheus import MetricsExporter
from shm.server.request_memory import RequestMemory
from shm.server.write_probe import WriteProbe


class PendingBody(Protocol):
    """A request with an incomplete body."""

    def enforce_body_timeout(self, now: float) -> None:
        """Refuses the request if its body is not complete within the timeout."""


@dataclass(slots=True)
class Services:
    """The services that handlers use, one set for a server process."""

    settings: Settings
    database: Database
    registry: Registry
    eraser: Eraser
    intake: BatchWriter
    instances: InstanceReader
    instance_pages: InstancePages
    kpis: KpiReader
    filtered_kpis: FilteredKpiReader
    past_kpis: PastKpiReader
    public_figures: PublicFigureReader
    fleet_figures: FleetFigureReader
    applications: ApplicationStore
    bulk_changes: BulkChanges
    audit: AuditLog
    events: EventLog
    charts: ChartReader
    versions: VersionReader
    result_cache: SingleFlightCache
    feed: FeedHub
    tokens: TokenStore
    rate_limiter: RateLimiter
    connections: Connections
    request_memory: RequestMemory
    large_bodies: LargeBodies
    write_probe: WriteProbe
    instruments: Instruments
    sampler: GaugeSampler
    github_stars: GitHubStars
    metrics_exporter: MetricsExporter
    websockets: set[tornado.websocket.WebSocketHandler] = field(default_factory=set)
    pending_bodies: set[PendingBody] = field(default_factory=set)
    draining: bool = False
    in_flight: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set while no request is in flight
    _requests: "set[asyncio.Task[None]]" = field(default_factory=set)

    def __post_init__(self) -> None:
        self.idle.set()

    def reject_if_draining(self) -> None:
        """Raises Overloaded while the server drains."""
        if self.draining:
            raise Overloaded(
                "shutting_down", "The server is shutting down; try again shortly.", 2, {"Connection": "close"}
            )

    def start_request(self, request: Coroutine[object, object, None]) -> None:
        """Runs a request in a task. The request is in flight until the task ends."""
        task = asyncio.create_task(request)
        self._requests.add(task)
        self.request_started()
        task.add_done_callback(self._finish_request)

    def _finish_request(self, task: "asyncio.Task[None]") -> None:
        self._requests.discard(task)
        self.request_finished()

    def cancel_in_flight(self) -> None:
        """Cancels the requests that did not end within the drain timeout."""
        for task in self._requests:
            task.cancel()

    def request_started(self) -> None:
        """Counts a request as in flight."""
        self.in_flight += 1
        self.idle.clear()

    def request_finished(self) -> None:
        """Counts a request as finished."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()
