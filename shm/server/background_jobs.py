"""What goes on in the background: time passes for instances, snapshots are rolled up, and what has had its time goes.

All of it in bounded steps, one after the other with rests between them, so that the intake never stands still for it;
by one process of all on a database, whoever survives. Each step is one statement that is true by itself.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from shm.analytics.rollup import Rollup
from shm.core.errors import DatabaseUnavailable
from shm.core.logs import RateLimitedLogger, describe_error
from shm.core.settings import Settings
from shm.db import partitions
from shm.db.advisory_locks import Lock
from shm.db.database import Database
from shm.feed.hub import Feed
from shm.ingest.batch_writer import Intake
from shm.ingest.registry import Registry

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

ROUND_S = 1.0  # between two rounds with nothing to do
REST = 2.0  # times as long as a step took, nothing is done: a third of a core at most goes into catching up
BUSY_REST = 9.0  # the same while snapshots wait to be stored: a tenth of a core; whoever sends comes first
BUSY = 16  # snapshots that wait: PostgreSQL has as much to do as it can
AGAIN_S = 5.0  # after the database was away
AGAIN_MOST_S = 30.0  # after a duty failed, which may be done but every hour

FORGET_PAGE = 1_000  # rows of a kind that are forgotten at a time
HOURS_KEPT = timedelta(days=9)  # at least: the chart of 7 days has steps within days, and begins at a midnight
SPREADS_KEPT = timedelta(days=1)  # so old a spread is told, if nobody has asked for it since


@dataclass(slots=True)
class Duty:
    """Something to be done every so often, a step at a time; a step returns whether there may be more to do."""

    name: str
    every_s: float
    step: Callable[[], Awaitable[object]]
    due: float = 0.0


def duties(database: Database, registry: Registry, feed: Feed, settings: Settings) -> list[Duty]:
    """All of them, the most urgent first."""

    async def forget(statement: str, **parameters: object) -> bool:
        return await database.execute(statement, most=FORGET_PAGE, **parameters) == FORGET_PAGE

    rollup = Rollup(database)
    hours_kept = max(settings.retention, HOURS_KEPT)
    return [
        Duty("sweep", ROUND_S, registry.sweep),
        Duty("begin the series anew", ROUND_S, rollup.begin_anew),
        Duty("roll up", ROUND_S, rollup.roll),
        Duty("close a day", 60.0, rollup.close),
        Duty("make weeks", 3_600.0, lambda: partitions.create_missing(database, settings)),
        Duty("drop weeks", 3_600.0, lambda: partitions.drop_expired(database, settings.retention)),
        Duty("purge", 60.0, registry.purge),
        Duty("forget removals", 60.0, feed.forget_removals),
        Duty("forget hours", 3_600.0, lambda: forget("series.forget_hours", kept=hours_kept)),
        Duty("forget what came to nothing", 3_600.0, lambda: forget("series.forget_nothing")),
        Duty("forget spent tallies", 60.0, lambda: forget("tallies.forget_spent")),
        Duty("forget spreads", 3_600.0, lambda: forget("spreads.forget", kept=SPREADS_KEPT)),
    ]


async def run(database: Database, registry: Registry, intake: Intake, feed: Feed, settings: Settings) -> None:
    """Goes round until cancelled, while no other process does."""
    while True:
        try:
            async with database.leader_lock(Lock.BACKGROUND) as hold:
                await _go_round(duties(database, registry, feed, settings), hold, intake)
        except DatabaseUnavailable as error:
            rate_limited.warning("what goes on in the background waits for the database", describe_error(error))
        except Exception:  # whatever it is: no reason to take nothing in
            rate_limited.exception("something in the background failed")
        await asyncio.sleep(AGAIN_S)


async def _go_round(duties: list[Duty], hold: Callable[[], Awaitable[None]], intake: Intake) -> None:
    while True:
        await hold()
        busy = False
        for duty in duties:
            if duty.due > time.monotonic():
                continue
            began = time.monotonic()
            more = await _do(duty, hold)
            busy = busy or more
            rest = BUSY_REST if intake.depth >= BUSY else REST
            await asyncio.sleep((time.monotonic() - began) * rest)
        if not busy:
            await asyncio.sleep(ROUND_S)


async def _do(duty: Duty, hold: Callable[[], Awaitable[None]]) -> bool:
    """One step of a duty, and when it is due again; whether there may be more to do at once.

    One that fails must not keep the others from what they do: on a full disk dropping weeks is what helps. Raises
    DatabaseUnavailable only where the database is away, or the lock lost.
    """
    began = time.monotonic()
    again_s = duty.every_s
    try:
        if await duty.step():
            return True
    except DatabaseUnavailable as error:  # such as a statement that was too slow, or a table in use
        await hold()
        rate_limited.warning(f"could not {duty.name}", str(error))
        again_s = min(max(duty.every_s, AGAIN_S), AGAIN_MOST_S)
    except Exception:  # such as a right that is missing
        rate_limited.exception(f"could not {duty.name}")
        again_s = min(max(duty.every_s, AGAIN_S), AGAIN_MOST_S)
    duty.due = began + again_s
    return False
