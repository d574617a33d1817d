"""The server's routes, start and shutdown."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache, partial
from typing import Any

import tornado.netutil
import tornado.web
from tornado.httpserver import HTTPServer

from shm.analytics.applications import ApplicationStore
from shm.analytics.charts import ChartReader
from shm.analytics.events import EventLog
from shm.analytics.filtered_kpis import FilteredKpiReader
from shm.analytics.fleet_figures import FleetFigureReader
from shm.analytics.instance_pages import InstancePages
from shm.analytics.instances import InstanceReader, parse_where
from shm.analytics.kpis import KpiReader
from shm.analytics.past_kpis import PastKpiReader
from shm.analytics.percentiles import DistributionReader
from shm.analytics.public_figures import PublicFigureReader
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.analytics.versions import VersionReader
from shm.auth.audit import AuditLog
from shm.auth.rate_limits import RateLimiter
from shm.auth.tokens import TokenStore
from shm.core import metric_keys
from shm.core.errors import ConfigurationError
from shm.core.instruments import Instruments
from shm.core.logs import RateLimitedLogger, describe_error
from shm.core.settings import Settings
from shm.core.tasks import run_in_background
from shm.db.database import Database
from shm.feed.hub import FeedHub
from shm.ingest.batch_writer import BatchWriter
from shm.ingest.bulk_changes import BulkChanges
from shm.ingest.enrolment import EnrolmentWriter
from shm.ingest.erasure import Eraser
from shm.ingest.key_cache import PublicKeyCache
from shm.ingest.registry import Registry
from shm.server import background_jobs, openapi
from shm.server.connections import Connections
from shm.server.gauge_sampler import GaugeSampler
from shm.server.github_stars import GitHubStars
from shm.server.handlers import (
    admin,
    badges,
    bulk,
    charts,
    events,
    export,
    feed,
    front_page,
    health,
    openapi_document,
    prometheus,
    tokens,
)
from shm.server.handlers.base import Handler, NotFoundHandler
from shm.server.handlers.ingest import ENDPOINTS
from shm.server.http.dispatcher import make_server
from shm.server.http.ingest_requests import enforce_body_timeouts
from shm.server.http.operations import validate_operations
from shm.server.http.tls import ServerCertificate
from shm.server.large_bodies import LargeBodies
from shm.server.prometheus import MetricsExporter
from shm.server.request_memory import RequestMemory
from shm.server.services import Services
from shm.server.write_probe import WriteProbe

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

ADMIN = "/api/v1/admin"
SLUG = r"(?P<slug>[a-z0-9-]{1,100})"
BADGE = r"/badge/(?P<slug>[^/]{1,256})"  # any text: a page shows only an image, so a wrong slug has to get one
UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
UUID_PREFIXES = "|".join(  # the first digits of one, with or without its dashes
    ["[0-9a-fA-F]{1,32}"]
    + ["[0-9a-fA-F]{8}-" + "[0-9a-fA-F]{4}-" * groups + "[0-9a-fA-F]{0,4}" for groups in range(3)]
    + ["[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{0,12}"]
)
INSTANCE_ID = rf"(?P<instance_id>{UUID_PREFIXES})"
TOKEN_ID = rf"(?P<token_id>{UUID})"

# The admin API. The client protocol's endpoints are in `handlers.ingest.ENDPOINTS`. A handler's class name is the value
# of the label `handler` in `GET /metrics`, so it must be unique.
ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/", front_page.Front),
    (rf"{BADGE}/instances", badges.InstancesBadge),
    (rf"{BADGE}/version", badges.VersionBadge),
    (rf"{BADGE}/metric/(?P<key>[^/]{{1,512}})", badges.MetricBadge),
    (rf"{BADGE}/combined", badges.CombinedBadge),
    (r"/api/v1/healthcheck", health.Healthcheck),
    (r"/api/v1/ready", health.Ready),
    (r"/api/openapi.json", openapi_document.OpenApi),
    (rf"{ADMIN}/stats", admin.Stats),
    (rf"{ADMIN}/applications", admin.Applications),
    (rf"{ADMIN}/applications/{SLUG}", admin.Application),
    (rf"{ADMIN}/applications/{SLUG}/refresh-stars", admin.RefreshStars),
    (rf"{ADMIN}/applications/{SLUG}/merge", bulk.MergeApplication),
    (rf"{ADMIN}/applications/{SLUG}/kpis", admin.ApplicationKpis),
    (rf"{ADMIN}/applications/{SLUG}/suggestions", charts.MetricSuggestions),
    (rf"{ADMIN}/applications/{SLUG}/versions", charts.Versions),
    (rf"{ADMIN}/version-rank", charts.VersionRank),
    (rf"{ADMIN}/applications/{SLUG}/lifecycle", charts.Lifecycle),
    (rf"{ADMIN}/applications/{SLUG}/breakdown", charts.Breakdown),
    (rf"{ADMIN}/applications/{SLUG}/histogram", charts.Histogram),
    (rf"{ADMIN}/metric-keys", charts.MetricKeys),
    (rf"{ADMIN}/metrics/(?P<app>[^/]{{1,256}})", charts.Metrics),
    (rf"{ADMIN}/instances", admin.Instances),
    (rf"{ADMIN}/instances/bulk", bulk.BulkInstances),
    (rf"{ADMIN}/instances/count", admin.InstanceCount),
    (rf"{ADMIN}/bulk-changes", bulk.BulkChanges),
    (rf"{ADMIN}/failed-removals", bulk.FailedRemovals),
    (rf"{ADMIN}/audit", bulk.Audit),
    (rf"{ADMIN}/events", events.Events),
    (rf"{ADMIN}/instances/{INSTANCE_ID}", admin.Instance),
    (rf"{ADMIN}/instances/{INSTANCE_ID}/snapshots", admin.InstanceSnapshots),
    (rf"{ADMIN}/instances/{INSTANCE_ID}/approve", admin.ApproveInstance),
    (rf"{ADMIN}/instances/{INSTANCE_ID}/revoke", admin.RevokeInstance),
    (rf"{ADMIN}/export", export.Export),
    (rf"{ADMIN}/tokens", tokens.TokenList),
    (rf"{ADMIN}/tokens/{TOKEN_ID}", tokens.TokenDetail),
    (rf"{ADMIN}/tokens/{TOKEN_ID}/rotate", tokens.RotateToken),
    (rf"{ADMIN}/feed", feed.Feed),
    (r"/metrics", prometheus.PrometheusMetrics),
    (r"/metrics/fleet", prometheus.FleetMetrics),
]

# The original's addresses, which it serves with a slash at the end too.
SLASH_ROUTES = (
    rf"{BADGE}/instances",
    rf"{BADGE}/version",
    rf"{BADGE}/metric/(?P<key>[^/]{{1,512}})",
    rf"{BADGE}/combined",
    r"/api/v1/healthcheck",
    rf"{ADMIN}/stats",
    rf"{ADMIN}/applications",
    rf"{ADMIN}/applications/{SLUG}",
    rf"{ADMIN}/applications/{SLUG}/refresh-stars",
    rf"{ADMIN}/metrics/(?P<app>[^/]{{1,256}})",
    rf"{ADMIN}/instances",
    rf"{ADMIN}/instances/{INSTANCE_ID}",
)

ALL_IPV4, ALL_IPV6 = "0.0.0.0", "::"  # noqa: S104 - bound only if the operator says so
MISSING_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)  # IPv4 or IPv6 is switched off
MAX_FEED_MESSAGE = 1024  # bytes of a subscriber's message, which the server ignores
PONG_TIMEOUT_SHARE = 2 / 3  # of a heartbeat: the timeout of a pong; Tornado then waits five seconds for the close frame
CLOSE_GRACE_S = 0.2  # for sending the feed's close frames


@cache
def describe_routes() -> bytes:
    """The OpenAPI document of all routes, which is built once in a process."""
    return openapi.document(ROUTES, ENDPOINTS)


def make_application(services: Services) -> tornado.web.Application:
    """The Tornado application. Raises ConfigurationError for a method with a faulty declaration."""
    for pattern, handler in ROUTES:
        validate_operations(pattern, handler)
    shared = {"services": services}
    return tornado.web.Application(
        [(pattern + ("/?" if pattern in SLASH_ROUTES else ""), handler, shared) for pattern, handler in ROUTES],
        default_handler_class=NotFoundHandler,
        default_handler_args=shared,
        log_function=_record_response,
        openapi=describe_routes(),
        websocket_ping_interval=services.settings.heartbeat.total_seconds(),
        websocket_ping_timeout=services.settings.heartbeat.total_seconds() * PONG_TIMEOUT_SHARE,
        websocket_max_message_size=MAX_FEED_MESSAGE,
    )


@asynccontextmanager
async def running_services(
    settings: Settings, database: Database, writer: Database, instruments: Instruments
) -> AsyncIterator[Services]:
    """The services of the handlers, with their background tasks, which end with the context.

    A background task that fails ends the context: a server that stores no snapshots or sends no changes must not
    answer health checks.
    """
    if settings.metric_words is not None:
        metric_keys.set_metric_words(settings.metric_words)
    keys = PublicKeyCache(database, settings)
    write_lock = asyncio.Lock()  # of the writer's connection
    enrolment = EnrolmentWriter(writer, settings, write_lock)
    registry, eraser = Registry(database, keys, enrolment), Eraser(database, keys, settings)
    distributions = DistributionReader(database)
    kpis = KpiReader(database, distributions, settings)
    instances = InstanceReader(database, settings)
    result_cache = SingleFlightCache(database.clock)
    intake = BatchWriter(writer, registry, settings, instruments, write_lock)
    feed_hub = FeedHub(database, kpis, settings)
    connections, request_memory = Connections(settings), RequestMemory(settings.max_reading)
    services = Services(
        settings=settings,
        database=database,
        registry=registry,
        eraser=eraser,
        intake=intake,
        instances=instances,
        instance_pages=InstancePages(database, instances.scans),
        kpis=kpis,
        filtered_kpis=FilteredKpiReader(database, instances.scans, settings),
        past_kpis=PastKpiReader(database, result_cache, settings),
        public_figures=PublicFigureReader(database, kpis),
        fleet_figures=FleetFigureReader(database, kpis),
        applications=ApplicationStore(database),
        bulk_changes=BulkChanges(database, registry, eraser, settings, partial(parse_where, database)),
        audit=AuditLog(database),
        events=EventLog(database, settings),
        charts=ChartReader(database, kpis, result_cache, settings),
        versions=VersionReader(database, result_cache, settings),
        result_cache=result_cache,
        feed=feed_hub,
        tokens=TokenStore(database, settings),
        rate_limiter=RateLimiter(settings),
        connections=connections,
        request_memory=request_memory,
        large_bodies=LargeBodies(settings),
        write_probe=WriteProbe(database),
        instruments=instruments,
        sampler=GaugeSampler(instruments, database, writer, intake, feed_hub, connections, request_memory, settings),
        github_stars=GitHubStars(settings),
        metrics_exporter=MetricsExporter(instruments.slots),
    )
    async with run_in_background(
        database.clock.run(),
        keys.run(),
        enrolment.run(),
        services.intake.run(),
        services.feed.run(),
        services.rate_limiter.run(),
        services.connections.run(),
        services.tokens.run(),
        feed.close_revoked_feeds(services),
        enforce_body_timeouts(services),
        distributions.run(),
        background_jobs.run(
            database, registry, eraser, services.intake, services.feed, services.github_stars, settings
        ),
        services.sampler.run(),
        services.sampler.measure(),
    ):
        yield services


def listen(settings: Settings, *, shared: bool = False) -> list[socket.socket]:
    """Binds sockets to the configured host and port. `shared`: other processes may bind to them too (SO_REUSEPORT).

    `::` is all addresses of both families, as users of other servers expect; Tornado binds a socket to one of them. A
    machine may have only one of the families.
    """
    hosts = (ALL_IPV6, ALL_IPV4) if settings.host == ALL_IPV6 else (settings.host,)
    sockets: list[socket.socket] = []
    problem: object = "this machine has no such address"
    for host in hosts:
        port = sockets[0].getsockname()[1] if sockets else settings.port
        try:
            sockets += tornado.netutil.bind_sockets(port, host, reuse_port=shared)
        except (OSError, UnicodeError) as error:
            problem = getattr(error, "strerror", error)
            if len(hosts) == 1 or getattr(error, "errno", None) not in MISSING_FAMILY:
                sockets.clear()
                break
    if not sockets:
        raise ConfigurationError(
            f"Cannot listen on {settings.host}, port {settings.port}: {problem}. Choose others with --host and --port."
        )
    return sockets


async def serve(
    settings: Settings,
    database: Database,
    writer: Database,
    listening: Callable[[int], None],
    stopping: asyncio.Event,
    instruments: Instruments,
) -> None:
    """Serves until `stopping` is set, then drains. Calls `listening` with the port once the server listens."""
    asyncio.get_running_loop().set_exception_handler(_log_callback_error)
    certificate = ServerCertificate.of(settings)
    async with (
        running_services(settings, database, writer, instruments) as services,
        run_in_background(*([certificate.run()] if certificate else [])),
    ):
        server = make_server(
            services, make_application(services), ENDPOINTS, certificate.context if certificate else None
        )
        sockets = listen(settings, shared=settings.workers > 1)
        server.add_sockets(sockets)
        listening(sockets[0].getsockname()[1])
        await stopping.wait()
        await _drain(server, services, settings.drain_timeout)


async def _drain(server: HTTPServer, services: Services, limit: timedelta) -> None:
    """Closes the listening sockets and the feeds, refuses new requests, and waits for those in flight."""
    logger.info("shutting down: waiting for the requests in flight")
    server.stop()
    services.draining = True
    for subscriber in list(services.websockets):
        subscriber.close(feed.GOING_AWAY, "the server is shutting down")
    try:
        await asyncio.wait_for(services.idle.wait(), limit.total_seconds())
    except TimeoutError:
        logger.warning("%d requests in flight are cancelled after %s", services.in_flight, limit)
        services.cancel_in_flight()
    await asyncio.sleep(CLOSE_GRACE_S)
    await server.close_all_connections()


def _record_response(handler: Handler) -> None:
    """Counts a response; Tornado calls this to log it. There is no access log, because it would contain addresses."""
    handler.services.instruments.record_response(
        type(handler).__name__, handler.get_status(), handler.request.request_time()
    )


def _log_callback_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs a failed callback without the reprs that asyncio logs: those of sockets contain addresses."""
    error = context.get("exception")
    reason = "without an exception" if error is None else describe_error(error)
    rate_limited.warning(f"a background callback failed ({type(error).__name__})", reason)
