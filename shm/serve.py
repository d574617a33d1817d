"""`shm serve`: settings, a database, the schema, an admin token, and then the server until it is told to end."""

import argparse
import asyncio
import logging
import os
import shlex
import signal
from pathlib import Path

from shm import logs
from shm.background import beside
from shm.database import Database
from shm.embedded import Revive, database_for
from shm.endings import ending, orderly
from shm.errors import ConfigurationError, DatabaseUnavailable
from shm.handlers.rooms import Rooms
from shm.migrate import migrate
from shm.server import serve
from shm.settings import Settings, add_flags

HELP = "Run the server: migrate, listen, and on SIGTERM finish what is in flight."

logger = logging.getLogger(__name__)

WRITERS = 1  # connections of the intake: batches follow each other, and readers can never take its place
LOOK_S = 1.0  # between two looks at an embedded PostgreSQL: whether a process is there costs nothing


def configure(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting that is no secret."""
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Runs until SIGTERM, SIGINT or SIGHUP."""
    logs.configure()
    settings = Settings.load(os.environ, vars(args))
    with orderly(), database_for(settings) as (dsn, revive):
        try:
            asyncio.run(_run(settings, dsn, revive))
        except DatabaseUnavailable as error:
            raise ConfigurationError(str(error)) from None
        except asyncio.CancelledError:
            logger.info("ended before it listened")
            return 128 + signal.SIGTERM
        finally:
            ending()
    logger.info("ended")
    return 0


async def _run(settings: Settings, dsn: str, revive: Revive | None) -> None:
    ended = _ended_by_signal()
    async with (
        Database.opened(settings, dsn) as database,
        Database.opened(settings, dsn, WRITERS) as writer,
        beside(*([_keep_alive(revive)] if revive else [])),
    ):
        await migrate(database)

        async def listening(port: int, rooms: Rooms) -> None:
            _say_how_to_open(settings, port, await rooms.tokens.ensure_admin(settings))
            ended.may_wait = True

        await serve(settings, database, writer, listening, ended)


class _Ended(asyncio.Event):
    """Set by a signal. Whoever cannot wait for it yet, because it is still starting, is cancelled instead."""

    may_wait = False


def _ended_by_signal() -> _Ended:
    ended, owner = _Ended(), asyncio.current_task()

    def told() -> None:
        ended.set()
        if not ended.may_wait and owner is not None:
            owner.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told)
    return ended


async def _keep_alive(revive: Revive) -> None:
    """Starts an embedded PostgreSQL again that died by itself."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            if await asyncio.to_thread(revive):
                logger.warning("the embedded PostgreSQL had died and was started again")
        except (ConfigurationError, OSError) as error:
            logger.warning("the embedded PostgreSQL died and could not be started again: %s", error)


def _say_how_to_open(settings: Settings, port: int, token_file: Path | None) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    reached = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host  # noqa: S104 - compared, not bound
    logger.info("SHM is listening on http://%s:%d", host, port)
    logger.info("admin token: %s", f"in {token_file}" if token_file else "the one in SHM_ADMIN_TOKEN")
    logger.info(
        "open the console: shm console --server http://%s:%d%s",
        *(reached, port),
        f" --data-dir {shlex.quote(str(settings.data_dir))}" if token_file else "",
    )
