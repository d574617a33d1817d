"""What goes on in the background: time passes for instances, snapshots are rolled up, and what has had its time goes.

All of it in bounded steps, one after the other with rests between them, so that the intake never stands still for it;
by one process of all on a database, whoever survives. Each step is one statement that is true by itself. Only what
reads all raw snapshots takes as long as they are many, and goes on beside the steps.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shm import check, partitions, rollup
from shm.background import beside
from shm.database import Database
from shm.errors import DatabaseUnavailable
from shm.feed import Feed
from shm.logs import Sparingly
from shm.registry import Registry
from shm.settings import Settings

logger = logging.getLogger(__name__)
sparingly = Sparingly(logger)

LOCK = 0x53484D05  # "SHM", 5: held by whoever does all this; 1 is `migrate`, 2 the writers, 3 the rollup
ROUND_S = 1.0  # between two rounds with nothing to do
REST = 2.0  # times as long as a step took, nothing is done: a third of a core at most goes into catching up
AGAIN_S = 5.0  # after a failure

FORGET_PAGE = 1_000  # rows of a kind that are forgotten at a time


@dataclass(frozen=True, slots=True)
class _Gone:
    gone: int


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
        return len(await database.fetch(_Gone, statement, most=FORGET_PAGE, **parameters)) == FORGET_PAGE

    return [
        Duty("sweep", ROUND_S, registry.sweep),
        Duty("roll up", ROUND_S, lambda: rollup.roll(database)),
        Duty("close a day", 60.0, lambda: rollup.close(database)),
        Duty("make weeks", 3_600.0, lambda: partitions.make(database)),
        Duty("drop weeks", 3_600.0, lambda: partitions.drop(database, settings.retention)),
        Duty("purge", 60.0, registry.purge),
        Duty("forget removals", 60.0, feed.forget_removals),
        Duty("forget hours", 3_600.0, lambda: forget("series.forget_hours", retention=settings.retention)),
        Duty("forget spreads", 3_600.0, lambda: forget("spreads.forget")),
        Duty("forget spent tallies", 60.0, lambda: forget("tallies.forget_spent")),
    ]


def long_duties(database: Database) -> list[Duty]:
    """Those whose step may take minutes."""
    return [Duty("compute the series anew", 60.0, lambda: renew_series(database))]


async def renew_series(database: Database) -> None:
    """Where the active window has become another, makes the series those of this one. Charts are wrong until then."""
    if not await check.is_stale(database):
        return
    async with check.mending(database) as mender:
        if mender is None:
            return  # `shm check --repair` is at it, and does this too
        logger.info("computing the series anew for another active window")
        left = await mender.renew_series()
    if left.count:
        logger.warning("the series are not those of this active window yet; they are tried again")
    else:
        logger.info("the series are those of this active window")


async def run(database: Database, registry: Registry, feed: Feed, settings: Settings) -> None:
    """Goes round until cancelled, while no other process does."""
    while True:
        try:
            async with database.alone(LOCK) as hold, beside(_go_round(long_duties(database))):
                await _go_round(duties(database, registry, feed, settings), hold)
        except DatabaseUnavailable as error:
            sparingly.warning("what goes on in the background waits for the database", type(error).__name__)
        except Exception:  # such as a right that is missing: no reason to take nothing in
            sparingly.exception("something in the background failed")
        await asyncio.sleep(AGAIN_S)


async def _go_round(duties: list[Duty], hold: Callable[[], Awaitable[None]] | None = None) -> None:
    while True:
        if hold is not None:
            await hold()
        busy = False
        for duty in duties:
            if duty.due > time.monotonic():
                continue
            began = time.monotonic()
            try:
                more = bool(await duty.step())
            except DatabaseUnavailable:
                raise
            except Exception:  # the others go on
                sparingly.exception(f"could not {duty.name}")
                more = False
            took = time.monotonic() - began
            if not more:
                duty.due = began + duty.every_s
            busy = busy or more
            await asyncio.sleep(took * REST)
        if not busy:
            await asyncio.sleep(ROUND_S)
