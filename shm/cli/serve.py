"""`shm serve`: prepares the database, the schema and an admin token, then runs the server until a signal.

With one worker everything runs in one process. With several, this process prepares and then supervises the workers
(`shm.server.supervisor`).
"""

import argparse
import asyncio
import logging
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from shm import __version__
from shm.analytics import events
from shm.auth.tokens import TokenStore
from shm.cli.database_command import load_settings, open_dsn
from shm.cli.service_manager import notify_ready
from shm.core import logs
from shm.core.errors import ConfigurationError
from shm.core.file_limit import raise_file_limit
from shm.core.gc_tuning import tune_gc
from shm.core.instruments import Instruments
from shm.core.settings import Settings
from shm.core.settings.flags import add_flags
from shm.core.settings.parsers import MAX_CONNECTIONS
from shm.core.shared_memory import WorkerSlots
from shm.core.signals import call_on_signals, exit_if_signalled, ignore_signals
from shm.core.tasks import run_in_background
from shm.db import partitions
from shm.db.database import Database
from shm.db.embedded.postgres import RestartIfDead
from shm.db.embedded.watchdog import PostgresWatchdog
from shm.db.migrations import migrate
from shm.db.shared_settings import persist_shared_settings
from shm.server.app import listen, serve
from shm.server.checks.database import CLOCK, DATABASE, WRITER_CONNECTIONS, check_database, connections_per_worker
from shm.server.checks.finding import Level
from shm.server.checks.machine import check_machine
from shm.server.http.tls import ServerCertificate
from shm.server.supervisor import Workers, reserve_port

HELP = "Run the server: migrate the schema, listen, and on SIGTERM finish the requests in flight."

logger = logging.getLogger(__name__)

NAME_OF_CERTIFICATE = "<name of the certificate>"  # which a client verifies


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for every setting that is not a secret."""
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Runs until SIGTERM, SIGINT or, unless `nohup` ignores it, SIGHUP."""
    logs.install_hooks()
    settings = load_settings(vars(args))
    _check_connection_limit(settings)
    ServerCertificate.of(settings)  # before anything is started
    raise_file_limit()
    tune_gc()
    with open_dsn(settings) as (dsn, restart_if_dead):
        try:
            if settings.workers == 1:
                asyncio.run(_run(settings, dsn, restart_if_dead))
            else:
                _run_workers(settings, dsn, restart_if_dead)
        except asyncio.CancelledError:
            logger.info("ended by a signal during the start")
            return 128 + signal.SIGTERM
        finally:
            ignore_signals()
    logger.info("ended")
    return 0


async def _run(settings: Settings, dsn: str, restart_if_dead: RestartIfDead | None) -> None:
    """Runs the server in this process."""
    jobs = [PostgresWatchdog(restart_if_dead).run()] if restart_if_dead else []
    with _stop_on_signals() as stop:
        async with _databases(settings, dsn) as (database, writer), run_in_background(*jobs):
            token_file = await _prepare_database(database, settings)

            def listening(port: int) -> None:
                _report_listening(settings, port, token_file)
                stop.is_ready = True

            await serve(settings, database, writer, listening, stop, Instruments(WorkerSlots(1)))


def _run_workers(settings: Settings, dsn: str, restart_if_dead: RestartIfDead | None) -> None:
    """Prepares the database in this process, then starts and supervises the workers."""

    def work(number: int, orphaned: int, notify_listening: Callable[[], None]) -> None:
        asyncio.run(
            _run_worker(replace(settings, port=port), dsn, Instruments(slots, number), orphaned, notify_listening)
        )

    slots = WorkerSlots(settings.workers)
    workers = Workers(settings.workers, work, settings.drain_timeout)
    exit_if_signalled()  # for a signal before `workers` installed its handlers
    token_file = workers.prepare(_prepare(settings, dsn))
    with reserve_port(listen(settings)) as port:
        workers.run(PostgresWatchdog(restart_if_dead).check, lambda: _report_listening(settings, port, token_file))


async def _prepare_database(database: Database, settings: Settings) -> Path | None:
    """Migrates the schema, creates the weekly partitions, and stores the settings that define figures.

    Logs PostgreSQL's version, and what `shm doctor` would warn about. Makes the admin token valid before any request is
    served, and returns the path of its file.
    """
    await migrate(database)
    await partitions.create_missing(database, settings)
    await persist_shared_settings(database, settings)
    await _log_findings(database, settings)
    token_file = await TokenStore(database, settings).ensure_admin_token()
    await events.record_start(database, __version__)
    return token_file


async def _log_findings(database: Database, settings: Settings) -> None:
    for finding in [*check_machine(settings), *await check_database(database, settings)]:
        if finding.subject == CLOCK:
            continue  # `Database.connect` has logged a difference
        if finding.level >= Level.WARNING:
            logger.warning("%s: %s. %s", finding.subject, finding.text, finding.remedy)
        elif finding.subject == DATABASE:
            logger.info("%s", f"{finding.text}. {finding.remedy}".rstrip(" ."))


async def _prepare(settings: Settings, dsn: str) -> Path | None:
    async with Database.connect(settings, dsn, size=1) as database:
        return await _prepare_database(database, settings)


async def _run_worker(
    settings: Settings, dsn: str, instruments: Instruments, orphaned: int, notify_listening: Callable[[], None]
) -> None:
    """Runs a worker: a server whose schema is prepared."""
    with _stop_on_signals(orphaned) as stop:

        def listening(_: int) -> None:
            notify_listening()
            stop.is_ready = True

        async with _databases(settings, dsn) as (database, writer):
            await serve(settings, database, writer, listening, stop, instruments)


@asynccontextmanager
async def _databases(settings: Settings, dsn: str) -> AsyncIterator[tuple[Database, Database]]:
    """The pool for reading and the pool of the batch writer."""
    async with (
        Database.connect(settings, dsn) as database,
        Database.connect(settings, dsn, WRITER_CONNECTIONS) as writer,
    ):
        yield database, writer


def _check_connection_limit(settings: Settings) -> None:
    """Raises ConfigurationError if several workers need too many connections. SHM_DB_POOL bounds those of one."""
    per_worker = connections_per_worker(settings)
    needed = settings.workers * per_worker
    if settings.workers > 1 and needed > MAX_CONNECTIONS:
        raise ConfigurationError(
            f"{settings.workers} workers with {per_worker} connections each need {needed} connections; "
            f"PostgreSQL allows {MAX_CONNECTIONS}. Set fewer workers with --workers, or smaller pools with --pool."
        )


class _StopEvent(asyncio.Event):
    """Set by a signal. A task that is still starting (`is_ready` is false) is cancelled instead."""

    is_ready = False


@contextmanager
def _stop_on_signals(orphaned: int | None = None) -> Iterator[_StopEvent]:
    """Yields an event that a signal sets, and the death of the parent process: `orphaned` then becomes readable."""
    stop, task = _StopEvent(), asyncio.current_task()
    loop = asyncio.get_running_loop()

    def request_stop() -> None:
        stop.set()
        if not stop.is_ready and task is not None:
            task.cancel()

    def on_parent_death(descriptor: int) -> None:
        loop.remove_reader(descriptor)
        logger.warning("the parent of this worker has died")
        request_stop()

    if orphaned is not None:
        loop.add_reader(orphaned, on_parent_death, orphaned)
    with call_on_signals(request_stop):
        yield stop


def _report_listening(settings: Settings, port: int, token_file: Path | None) -> None:
    _log_how_to_connect(settings, port, token_file)
    notify_ready()


def _log_how_to_connect(settings: Settings, port: int, token_file: Path | None) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    client_host = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host  # noqa: S104 - compared, not bound
    scheme = "http" if settings.tls_cert is None else "https"
    logger.info("SHM is listening on %s://%s:%d", scheme, host, port)
    logger.info("admin token: %s", f"in {token_file}" if token_file else "the one in SHM_ADMIN_TOKEN")
    logger.info(
        "open the console: shm console --server %s://%s:%d%s",
        *(scheme, client_host if settings.tls_cert is None else NAME_OF_CERTIFICATE, port),
        f" --data-dir {shlex.quote(str(settings.data_dir))}" if token_file else "",
    )
