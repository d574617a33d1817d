"""`shm check`: compares counts, KPIs, charts and first versions with the raw snapshots; `--repair` corrects them.

It may run beside servers. Standard output has the differences, a line each. The exit status is 0 where there is none.
"""

import argparse
import asyncio
import os

from shm import logs
from shm.check import STALE, Findings, find, mending
from shm.database import Database
from shm.embedded import database_for
from shm.endings import interruptible, orderly
from shm.errors import ConfigurationError, DatabaseUnavailable
from shm.migrate import migrate
from shm.settings import Settings, add_flags
from shm.terminal import answer, printable, say

HELP = (
    "Recompute counts, KPIs, charts and first versions from the raw snapshots and list each difference; --repair "
    "corrects them. Spreads and what else is computed when somebody asks are not compared."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags of `shm migrate`, and whether to mend."""
    add_flags(parser, "dsn", "data_dir")
    parser.add_argument(
        "--repair", action="store_true", help="Mend what is derived from raw snapshots; those stay as they are."
    )


def run(args: argparse.Namespace) -> int:
    """Compares, mends where that was asked for, and says what it found."""
    logs.configure()
    settings = Settings.load(os.environ, {name: vars(args)[name] for name in ("dsn", "data_dir")})
    logs.configure(settings.log_level)
    try:
        with orderly(), database_for(settings) as (dsn, _), interruptible():
            return asyncio.run(_check(settings, dsn, repair=args.repair))
    except DatabaseUnavailable as error:
        raise ConfigurationError(f"The database cannot be used: {error}.") from None


async def _check(settings: Settings, dsn: str, *, repair: bool) -> int:
    async with Database.opened(settings, dsn, size=1) as database:
        await migrate(database)
        left = await _repair(database) if repair else await find(database)
    _tell(left, "")
    if STALE.part in left.counts:
        say("Charts are those of another SHM_ACTIVE_WINDOW: a server that runs computes them anew. Check again then.")
    if left.count and not repair:
        say(f"{_differences(left.count)}. `shm check --repair` mends them.")
    elif left.count:
        say(f"{_differences(left.count)} could not be mended.")
    else:
        say("Counts, KPIs, charts and first versions are what the raw snapshots make them.")
    return 1 if left.count else 0


async def _repair(database: Database) -> Findings:
    async with mending(database) as mender:
        if mender is None:
            raise ConfigurationError("Another process is mending figures on this database; try again when it is done.")
        mended, left = await mender.mend()
    _tell(mended, "mended ")
    if mended.count:
        say(f"Mended {_differences(mended.count)}.")
    return left


def _tell(findings: Findings, before: str) -> None:
    for part, shown in findings.shown.items():
        for each in shown:
            answer(printable(f"{before}{part}: {each.place}: is {each.actual}, should be {each.expected}"))
        if findings.counts[part] > len(shown):
            answer(f"{before}{part}: and {findings.counts[part] - len(shown)} more")


def _differences(count: int) -> str:
    return "1 difference" if count == 1 else f"{count} differences"
