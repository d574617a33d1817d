"""Background jobs that refresh the states of instances, roll up snapshots, and delete expired data.

Jobs run in bounded steps, one after the other with pauses between them, so that they never block the intake. Only
one process on a database runs them; another one continues when it ends. Each statement of a step leaves the data
consistent. A job's name follows "could not" in log messages.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from shm.analytics import events
from shm.analytics.disk_forecast import record_size
from shm.analytics.events import EventLog
from shm.analytics.instances import parse_where
from shm.analytics.rollup import Rollup
from shm.core.errors import DatabaseUnavailable
from shm.core.logs import RateLimitedLogger, describe_error
from shm.core.settings import Settings
from shm.core.tasks import run_in_background
from shm.db import partitions
from shm.db.advisory_locks import Lock
from shm.db.database import Database
from shm.feed.hub import FeedHub
from shm.ingest.batch_writer import BatchWriter
from shm.ingest.bulk_changes import BulkChanges
from shm.ingest.erasure import Eraser
from shm.ingest.key_limits import KeyLimits
from shm.ingest.registry import Registry
from shm.server.github_stars import GitHubStars
from shm.server.stars_refresher import StarsRefresher

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

IDLE_INTERVAL_S = 1.0  # between two passes over the jobs if none has work
PAUSE_FACTOR = 2.0  # of the step's duration: a backlog of work uses at most a third of a core
BUSY_PAUSE_FACTOR = 9.0  # while snapshots, which have priority, wait to be stored: a tenth of a core
BUSY_QUEUE_LENGTH = 16  # waiting snapshots from which PostgreSQL is considered fully loaded
RETRY_S = 5.0  # after the database was unavailable
MAX_RETRY_S = 30.0  # after a failed job, even if it is due only every hour

EVENTS_INTERVAL_S = 5.0  # nobody notices such a delay of an event
DELETE_PAGE_SIZE = 1_000  # rows that one step deletes
MIN_HOURS_RETENTION = timedelta(days=9)  # the chart of 7 days has steps shorter than a day, and begins at a midnight
AUDIT_RETENTION = timedelta(days=365)  # an audit looks at the last year
UNUSED_RETENTION = timedelta(days=1)  # of stored distributions, after their last request


@dataclass(slots=True)
class Job:
    """A periodic job that runs in steps. A step returns whether there may be more to do."""

    name: str
    interval_s: float
    step: Callable[[], Awaitable[object]]
    due_at: float = 0.0


def jobs(database: Database, registry: Registry, eraser: Eraser, feed: FeedHub, settings: Settings) -> list[Job]:
    """All jobs, the most urgent first."""

    async def delete_page(statement: str, **parameters: object) -> bool:
        return await database.execute(statement, limit=DELETE_PAGE_SIZE, **parameters) == DELETE_PAGE_SIZE

    async def record_round() -> None:
        await database.execute("health.record_round")

    rollup = Rollup(database)
    key_limits = KeyLimits(database, settings)
    bulk_changes = BulkChanges(database, registry, eraser, settings, functools.partial(parse_where, database))
    event_log = EventLog(database, settings)
    hours_retention = max(settings.retention, MIN_HOURS_RETENTION)
    return [
        Job("refresh due instances", IDLE_INTERVAL_S, registry.refresh_due),
        Job("restart outdated series", IDLE_INTERVAL_S, rollup.restart_if_stale),
        Job("roll up", IDLE_INTERVAL_S, rollup.roll_up),
        Job("close a day of the series", 60.0, rollup.close_day),
        Job("write events of versions", EVENTS_INTERVAL_S, event_log.write_versions),
        Job("write events of approvals and registrations", EVENTS_INTERVAL_S, event_log.write_warnings),
        Job("write events of days", 60.0, event_log.write_days),
        Job("create weekly partitions", 3_600.0, lambda: partitions.create_missing(database, settings)),
        Job("drop expired partitions", 3_600.0, lambda: partitions.drop_expired(database, settings.retention)),
        Job("complete interrupted deletions", 60.0, eraser.resume_interrupted),
        Job("continue changes of many instances", IDLE_INTERVAL_S, bulk_changes.run_step),
        Job("purge unproven instances", 60.0, eraser.purge_unproven),
        Job("delete old hashes of erased instances", 3_600.0, eraser.delete_old_identities),
        Job("delete old hashes of actions", 60.0, eraser.delete_old_actions),
        Job("delete old receipts of erasures", 60.0, eraser.delete_old_receipts),
        Job("delete old removals", 60.0, feed.delete_old_removals),
        Job("store the size of the database", 600.0, lambda: record_size(database)),
        Job(
            "delete old hours of the series",
            3_600.0,
            lambda: delete_page("series.delete_old_hours", retention=hours_retention),
        ),
        Job("delete zero rows of the series", 3_600.0, lambda: delete_page("series.delete_zero_rows")),
        Job("delete zero rows of the tallies", 60.0, lambda: delete_page("tallies.delete_zero_rows")),
        Job("delete unused keys", 3_600.0, key_limits.delete_unused_keys),
        Job("delete unused values of strings", 3_600.0, key_limits.delete_unused_values),
        Job("delete unused versions", 3_600.0, key_limits.delete_unused_versions),
        Job("delete old events", 3_600.0, lambda: delete_page("events.delete_old", retention=events.RETENTION)),
        Job("delete old audit entries", 3_600.0, lambda: delete_page("audit.delete_old", retention=AUDIT_RETENTION)),
        Job(
            "delete old changes of many instances",
            3_600.0,
            lambda: delete_page("bulk.delete_old", retention=AUDIT_RETENTION),
        ),
        Job(
            "delete unused distributions",
            3_600.0,
            lambda: delete_page("distributions.delete_unused", retention=UNUSED_RETENTION),
        ),
        Job("record a completed round", 10.0, record_round),  # last: all jobs before it have had their turn
    ]


async def run(
    database: Database,
    registry: Registry,
    eraser: Eraser,
    intake: BatchWriter,
    feed: FeedHub,
    github: GitHubStars,
    settings: Settings,
) -> None:
    """Runs the jobs, and beside them the refreshing of stars, until cancelled, while this process holds the lock."""
    while True:
        try:
            async with (
                database.leader_lock(Lock.BACKGROUND) as check_leadership,
                run_in_background(StarsRefresher(database, github).run()),
            ):
                await _run_jobs(jobs(database, registry, eraser, feed, settings), check_leadership, intake)
        except DatabaseUnavailable as error:
            rate_limited.warning("the background jobs wait for the database", describe_error(error))
        except Exception:  # a failure here must not stop the intake
            rate_limited.exception("the background jobs failed")
        await asyncio.sleep(RETRY_S)


async def _run_jobs(jobs: list[Job], check_leadership: Callable[[], Awaitable[None]], intake: BatchWriter) -> None:
    while True:
        await check_leadership()
        has_more = False
        for job in jobs:
            if job.due_at > time.monotonic():
                continue
            started_at = time.monotonic()
            has_more_work = await _run_step(job, check_leadership)
            has_more = has_more or has_more_work
            pause_factor = BUSY_PAUSE_FACTOR if intake.depth >= BUSY_QUEUE_LENGTH else PAUSE_FACTOR
            await asyncio.sleep((time.monotonic() - started_at) * pause_factor)
        if not has_more:
            await asyncio.sleep(IDLE_INTERVAL_S)


async def _run_step(job: Job, check_leadership: Callable[[], Awaitable[None]]) -> bool:
    """Runs one step of a job and sets when it is due again. Returns whether there may be more to do at once.

    A failed step must not stop the other jobs: on a full disk, dropping old weeks frees space. Raises
    DatabaseUnavailable only if the database is unavailable or the lock is lost.
    """
    started_at = time.monotonic()
    next_in_s = job.interval_s
    try:
        if await job.step():
            return True
    except DatabaseUnavailable as error:  # such as a slow statement or a locked table
        await check_leadership()
        rate_limited.warning(f"could not {job.name}", str(error))
        next_in_s = min(max(job.interval_s, RETRY_S), MAX_RETRY_S)
    except Exception:  # such as a missing privilege
        rate_limited.exception(f"could not {job.name}")
        next_in_s = min(max(job.interval_s, RETRY_S), MAX_RETRY_S)
    job.due_at = started_at + next_in_s
    return False
