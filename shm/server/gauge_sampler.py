"""Looks at what stands and is counted nowhere: the queue, pools, the feed, the loop, the database, the charts.

Every worker looks at itself several times a second, so that a scrape that another worker answers knows of it too.
"""

import asyncio
import logging
from dataclasses import dataclass
from statistics import median

from shm.core.errors import DatabaseUnavailable
from shm.core.instruments import Instruments
from shm.core.logs import describe_error
from shm.db.database import Database
from shm.feed.hub import Feed
from shm.ingest.batch_writer import BatchWriter

SAMPLE_INTERVAL_S = 0.25  # a loop that is blocked for longer is noticed; a sample takes some ten microseconds
MEASURE_INTERVAL_S = (
    5.0  # between two measurements of the database: PostgreSQL asks for each file's size, about a millisecond
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Measurement:
    bytes: int
    series_lag_s: float


class GaugeSampler:
    """That of one worker."""

    def __init__(
        self, instruments: Instruments, database: Database, writer: Database, intake: BatchWriter, feed: Feed
    ) -> None:
        self._instruments = instruments
        self._database = database
        self._pools = {"readers": database, "writer": writer}
        self._intake = intake
        self._feed = feed

    def sample(self) -> None:
        """Once, at this moment."""
        instruments = self._instruments
        instruments.queue_length.set(self._intake.depth)
        lags = self._feed.lags()
        instruments.feed_subscribers.set(len(lags))
        instruments.slowest_feed_lag.set(max(lags, default=0.0))
        instruments.median_feed_lag.set(median(lags) if lags else 0.0)
        for name, pool in self._pools.items():
            use = pool.usage
            instruments.connections.set(use.used, name, "used")
            instruments.connections.set(use.free, name, "free")
            instruments.waiting_statements.set(use.waiting, name)

    async def run(self) -> None:
        """Again and again, until cancelled; what the loop is late for that is its lag."""
        loop = asyncio.get_running_loop()
        while True:
            self.sample()
            due = loop.time() + SAMPLE_INTERVAL_S
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            self._instruments.loop_lag.observe(max(0.0, loop.time() - due))

    async def measure(self) -> None:
        """The database's size and the charts' lag, until cancelled. The first worker does it for all."""
        while self._instruments.worker == 0:
            try:
                (measurement,) = await self._database.fetch(_Measurement, "health.measure_database")
                self._instruments.database_bytes.set(measurement.bytes)
                self._instruments.series_lag.set(measurement.series_lag_s)
            except DatabaseUnavailable as error:
                logger.warning("could not measure the database (%s)", describe_error(error))
            except Exception:  # such as a right that is missing: no reason to take nothing in
                logger.exception("could not measure the database")
            await asyncio.sleep(MEASURE_INTERVAL_S)
