"""`shm serve`: settings, a database, the schema, an admin token, and then the server until it is told to end.

With one worker all of it is one process. With more, this process does what comes first and `shm.server.supervisor`
the rest.
"""

import argparse
import asyncio
import logging
import shlex
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from shm.auth.tokens import Tokens
from shm.cli.command_line import database_of, load_settings
from shm.core import logs
from shm.core.errors import ConfigurationError
from shm.core.gc_tuning import collect_seldom
from shm.core.instruments import Vitals
from shm.core.setting_types import LARGEST_POOL
from shm.core.settings import Settings, add_flags
from shm.core.shared_memory import SharedNumbers
from shm.core.signals import call_on_signals, ending, exit_if_signalled
from shm.core.tasks import beside
from shm.db import definitions, partitions
from shm.db.database import Database
from shm.db.embedded import Revive
from shm.db.migrations import migrate
from shm.server.app import listen, serve
from shm.server.services import Rooms
from shm.server.supervisor import Workers, reserved

HELP = "Run the server: migrate, listen, and on SIGTERM finish what is in flight."

logger = logging.getLogger(__name__)
sparingly = logs.Sparingly(logger)

WRITERS = 1  # connections of the intake: batches follow each other, and readers can never take its place
LISTENERS = 1  # connections of the feed
KEEPERS = 1  # connections of what goes on in the background
REVIVE_MOST_S = 15.0  # between two tries to revive it: each costs processes and lines of its log
LOOK_S = 1.0  # between two looks at an embedded PostgreSQL: whether a process is there costs nothing


def configure(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting that is no secret."""
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Runs until SIGTERM, SIGINT or SIGHUP."""
    logs.take_over()
    settings = load_settings(vars(args))
    _refuse_too_many_connections(settings)
    collect_seldom()
    with database_of(settings) as (dsn, revive):
        try:
            if settings.workers == 1:
                asyncio.run(_run(settings, dsn, revive))
            else:
                _run_workers(settings, dsn, revive)
        except asyncio.CancelledError:
            logger.info("ended before it listened")
            return 128 + signal.SIGTERM
        finally:
            ending()
    logger.info("ended")
    return 0


async def _run(settings: Settings, dsn: str, revive: Revive | None) -> None:
    """All of it in this process."""
    jobs = [_keep_alive(_Caretaker(revive))] if revive else []
    with _ended_by_signal() as ended:
        async with _databases(settings, dsn) as (database, writer), beside(*jobs):
            await _make_ready(database, settings)

            async def listening(port: int, rooms: Rooms) -> None:
                _say_how_to_open(settings, port, await rooms.tokens.ensure_admin())
                ended.may_wait = True

            await serve(settings, database, writer, listening, ended, Vitals(SharedNumbers(1)))


def _run_workers(settings: Settings, dsn: str, revive: Revive | None) -> None:
    """What comes first in this process, which then sees to the workers."""

    def work(number: int, orphaned: int, tell_listening: Callable[[], None]) -> None:
        asyncio.run(_work(replace(settings, port=port), dsn, Vitals(numbers, number), orphaned, tell_listening))

    numbers = SharedNumbers(settings.workers)
    workers = Workers(settings.workers, work, settings.drain_timeout)
    exit_if_signalled()  # by one that came before `workers` listened to signals
    token_file = workers.prepare(_prepare(settings, dsn))
    with reserved(listen(settings)) as port:
        workers.run(_Caretaker(revive).look, lambda: _say_how_to_open(settings, port, token_file))


async def _make_ready(database: Database, settings: Settings) -> None:
    """The schema, the weeks that snapshots will need, and what the counted words mean."""
    await migrate(database)
    await partitions.make(database, settings)
    await definitions.agree(database, settings)


async def _prepare(settings: Settings, dsn: str) -> Path | None:
    async with Database.opened(settings, dsn, size=1) as database:
        await _make_ready(database, settings)
        return await Tokens(database, settings).ensure_admin()


async def _work(
    settings: Settings, dsn: str, vitals: Vitals, orphaned: int, tell_listening: Callable[[], None]
) -> None:
    """A worker: a server on a schema that is there."""
    with _ended_by_signal(orphaned) as ended:

        async def listening(_: int, __: Rooms) -> None:
            tell_listening()
            ended.may_wait = True

        async with _databases(settings, dsn) as (database, writer):
            await serve(settings, database, writer, listening, ended, vitals)


@asynccontextmanager
async def _databases(settings: Settings, dsn: str) -> AsyncIterator[tuple[Database, Database]]:
    """The readers' pool and the writer's."""
    async with Database.opened(settings, dsn) as database, Database.opened(settings, dsn, WRITERS) as writer:
        yield database, writer


def _refuse_too_many_connections(settings: Settings) -> None:
    """One process is within the limit of SHM_DB_POOL; several may not be."""
    each = settings.pool + WRITERS + LISTENERS + KEEPERS
    wanted = settings.workers * each
    if settings.workers > 1 and wanted > LARGEST_POOL:
        raise ConfigurationError(
            f"{settings.workers} workers with {each} connections each want {wanted}; "
            f"PostgreSQL has room for {LARGEST_POOL}. Choose fewer with --workers, or smaller pools with --pool."
        )


class _Ended(asyncio.Event):
    """Set by a signal. Whoever cannot wait for it yet, because it is still starting, is cancelled instead."""

    may_wait = False


@contextmanager
def _ended_by_signal(orphaned: int | None = None) -> Iterator[_Ended]:
    """Also by the death of the parent, where there is one: `orphaned` can be read then."""
    ended, owner = _Ended(), asyncio.current_task()
    loop = asyncio.get_running_loop()

    def told() -> None:
        ended.set()
        if not ended.may_wait and owner is not None:
            owner.cancel()

    def left(descriptor: int) -> None:
        loop.remove_reader(descriptor)
        logger.warning("the parent of this worker has died")
        told()

    if orphaned is not None:
        loop.add_reader(orphaned, left, orphaned)
    with call_on_signals(told):
        yield ended


async def _keep_alive(caretaker: "_Caretaker") -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(caretaker.look)


class _Caretaker:
    """Starts an embedded PostgreSQL again that died by itself; ever more slowly while it does not come up."""

    def __init__(self, revive: Revive | None) -> None:
        self._revive = revive
        self._pause_s = LOOK_S
        self._due = 0.0

    def look(self) -> None:
        """To be called every second."""
        if self._revive is None or time.monotonic() < self._due:
            return
        try:
            if self._revive():
                logger.warning("the embedded PostgreSQL had died and was started again")
            self._pause_s = LOOK_S
        except (ConfigurationError, OSError) as error:
            sparingly.warning("the embedded PostgreSQL died and could not be started again", str(error))
            self._pause_s = min(self._pause_s * 2, REVIVE_MOST_S)
            self._due = time.monotonic() + self._pause_s


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
