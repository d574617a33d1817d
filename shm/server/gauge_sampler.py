"""Samples the gauges: connections, queue, pools, feed, event loop, open files, disk, installs, ages of background work.

Every worker samples itself several times a second, so that a scrape served by another worker includes its values.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from statistics import median

from shm.analytics.counts import STATUSES
from shm.analytics.disk_forecast import DiskForecast, forecast_disk, free_bytes
from shm.core.errors import DatabaseUnavailable
from shm.core.file_limit import count_open_files, open_files_limit
from shm.core.instruments import Instruments
from shm.core.logs import RateLimitedLogger, describe_error
from shm.core.settings import Settings
from shm.db.database import Database
from shm.feed.hub import FeedHub
from shm.ingest.batch_writer import BatchWriter
from shm.server.connections import Connections
from shm.server.request_memory import RequestMemory

SAMPLE_INTERVAL_S = 0.25  # a loop blocked for longer shows as lag; a sample takes about ten microseconds
MEASURE_INTERVAL_S = 5.0  # between two measurements of the database, which take about a millisecond

WARNING_LEAD_TIME = timedelta(days=14)  # time to order a disk
MAX_WARNING_INTERVAL_S = 86_400.0
MIN_WARNING_INTERVAL_S = 3_600.0

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)


@dataclass(frozen=True, slots=True)
class _Measurement:
    series_lag_s: float
    background_age_s: float


@dataclass(frozen=True, slots=True)
class _StatusCount:
    status: str
    instances: int


class GaugeSampler:
    """The sampler of one worker."""

    def __init__(
        self,
        instruments: Instruments,
        database: Database,
        writer: Database,
        intake: BatchWriter,
        feed: FeedHub,
        connections: Connections,
        request_memory: RequestMemory,
        settings: Settings,
    ) -> None:
        self._instruments = instruments
        self._database = database
        self._pools = {"readers": database, "writer": writer}
        self._intake = intake
        self._feed = feed
        self._connections = connections
        self._request_memory = request_memory
        self._settings = settings
        self._warned_at = -inf
        self._next_count_at = 0.0

    def sample(self) -> None:
        """Sets this worker's gauges to their current values."""
        instruments = self._instruments
        instruments.queue_length.set(self._intake.depth)
        instruments.client_connections.set(len(self._connections))
        instruments.request_bytes.set(self._request_memory.used_bytes)
        instruments.response_bytes.set(self._connections.unread_bytes)
        lags = self._feed.lags()
        instruments.feed_subscribers.set(len(lags))
        instruments.slowest_feed_lag.set(max(lags, default=0.0))
        instruments.median_feed_lag.set(median(lags) if lags else 0.0)
        for name, pool in self._pools.items():
            usage = pool.usage
            instruments.connections.set(usage.used, name, "used")
            instruments.connections.set(usage.free, name, "free")
            instruments.waiting_statements.set(usage.waiting, name)
        if time.monotonic() >= self._next_count_at:  # the list of ten thousand open files takes milliseconds
            self._next_count_at = time.monotonic() + MEASURE_INTERVAL_S
            instruments.open_files.set(count_open_files())
            instruments.open_files_limit.set(open_files_limit())

    async def run(self) -> None:
        """Samples periodically until cancelled. The delay of a wake-up is the event loop's lag."""
        loop = asyncio.get_running_loop()
        while True:
            self.sample()
            due_at = loop.time() + SAMPLE_INTERVAL_S
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            self._instruments.loop_lag.observe(max(0.0, loop.time() - due_at))

    async def measure(self) -> None:
        """Measures what is not of one worker until cancelled: the database, the disk. Only the first worker does so."""
        while self._instruments.worker == 0:
            try:
                self._instruments.disk_free.set(free_bytes(self._settings.data_dir))
                (measurement,) = await self._database.fetch(_Measurement, "health.measure_database")
                self._instruments.series_lag.set(measurement.series_lag_s)
                self._instruments.background_age.set(measurement.background_age_s)
                installs = await self._database.fetch(_StatusCount, "health.count_installs")
                for status, number in (
                    dict.fromkeys(STATUSES, 0) | {row.status: row.instances for row in installs}
                ).items():
                    self._instruments.installs.set(number, status)
                self._show_forecast(await forecast_disk(self._database, self._settings))
            except DatabaseUnavailable as error:
                rate_limited.warning("could not measure the database", describe_error(error))
            except Exception:  # for example a missing privilege, which must not stop the intake
                rate_limited.exception("could not measure the database")
            await asyncio.sleep(MEASURE_INTERVAL_S)

    def _show_forecast(self, forecast: DiskForecast) -> None:
        """Sets the gauges of the database's size, and warns while its disk will be full soon.

        A warning is repeated after a day, in the last days after half of the remaining time.
        """
        instruments = self._instruments
        instruments.database_bytes.set(forecast.database_bytes)
        if forecast.limit_bytes is not None:
            instruments.disk_limit.set(forecast.limit_bytes)
        full_in = forecast.full_in()
        if full_in is not None:
            instruments.full_in.set(full_in.total_seconds())
        elif forecast.limit_bytes is not None and forecast.growth_bytes_per_day is not None:
            instruments.full_in.set(inf)
        if forecast.growth_bytes_per_day is not None:
            instruments.database_growth.set(forecast.growth_bytes_per_day)
        if full_in is None or full_in >= WARNING_LEAD_TIME:
            return
        interval_s = min(max(full_in.total_seconds() / 2, MIN_WARNING_INTERVAL_S), MAX_WARNING_INTERVAL_S)
        if time.monotonic() - self._warned_at >= interval_s:
            self._warned_at = time.monotonic()
            logger.warning(
                "the database has %d of %d MiB and grows by %d MiB a day: it is %s. Enlarge its disk or "
                "SHM_MAX_DISK, or keep raw snapshots for a shorter time (SHM_RETENTION)",
                forecast.database_bytes >> 20,
                (forecast.limit_bytes or 0) >> 20,
                (forecast.growth_bytes_per_day or 0) >> 20,
                forecast.describe_full_in(),
            )
