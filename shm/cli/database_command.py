"""Common parts of all commands that use the database: settings, log, connection, schema, and error messages."""

import argparse
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

from shm.cli.terminal import BROKEN_PIPE_STATUS, flush_results
from shm.core import logs
from shm.core.errors import ConfigurationError, DatabaseUnavailable, Refusal, StatementFailed, UnstorableData
from shm.core.settings import Settings
from shm.core.signals import exit_on_signals, run_cancellable
from shm.db.database import Database
from shm.db.embedded.postgres import RestartIfDead, provide_dsn
from shm.db.migrations import check_schema, migrate

FLAGS = ("dsn", "data_dir")  # of every command except `serve`, which has a flag for each setting

T = TypeVar("T")
Action = Callable[[Database, Settings], Awaitable[int]]
Preparation = Callable[[Database], Awaitable[object]]

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace, action: Action, *, prepare: Preparation = migrate) -> int:
    """Runs `action` on the database of `args` and returns its exit status, as `run_with_resource`."""
    return run_with_resource(
        args, nullcontext(), lambda database, settings, _: action(database, settings), prepare=prepare
    )


def run_with_resource(
    args: argparse.Namespace,
    resource: AbstractContextManager[T],
    action: Callable[[Database, Settings, T], Awaitable[int]],
    *,
    prepare: Preparation = migrate,
) -> int:
    """The same with a resource that no signal interrupts while it is opened or closed.

    `prepare` runs before `action`. A command that only reads passes `check_schema`: nothing is created then.

    Raises ConfigurationError with a message. Any other exception is logged, redacted, and results in status 1.
    """

    def command() -> int:
        settings = load_flags(args)
        create = prepare is not check_schema
        with open_dsn(settings, create=create) as (dsn, _), resource as opened:
            status = run_cancellable(_with_database(settings, dsn, opened, prepare, action))
            flush_results()
            return status

    return run_for_status(command)


def run_for_status(command: Callable[[], int]) -> int:
    """The exit status of a command. An unexpected exception is logged, redacted, and results in status 1.

    Raises ConfigurationError with a message.
    """
    try:
        return command()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit and would fail
        return BROKEN_PIPE_STATUS
    except ConfigurationError:
        raise
    except Exception:
        logger.critical("ended by an unhandled exception", exc_info=True)
        return 1


def load_flags(args: argparse.Namespace) -> Settings:
    """Loads the settings with the flags `FLAGS`, and configures the log by them."""
    return load_settings({name: vars(args)[name] for name in FLAGS})


def load_settings(flags: Mapping[str, object]) -> Settings:
    """Loads the settings, in which `flags` override the environment, and configures the log by them."""
    logs.configure()
    settings = Settings.load(os.environ, flags)
    logs.configure(settings.log_level)
    return settings


@contextmanager
def open_dsn(
    settings: Settings, *, create: bool = True, any_major: bool = False
) -> Iterator[tuple[str, RestartIfDead | None]]:
    """As `provide_dsn`, within `exit_on_signals`. Errors of the database become ConfigurationErrors."""
    try:
        with exit_on_signals(), provide_dsn(settings, create=create, any_major=any_major) as dsn_and_restart:
            yield dsn_and_restart
    except Refusal as refusal:
        raise ConfigurationError(refusal.detail) from None
    except DatabaseUnavailable as error:
        raise ConfigurationError(f"The database cannot be used: {str(error).rstrip('.')}.") from None
    except StatementFailed as error:
        raise ConfigurationError(f"PostgreSQL refused {error}.") from None
    except UnstorableData as error:
        raise ConfigurationError(f"PostgreSQL cannot store or compare a value: {error}.") from None


async def _with_database(
    settings: Settings,
    dsn: str,
    resource: T,
    prepare: Preparation,
    action: Callable[[Database, Settings, T], Awaitable[int]],
) -> int:
    async with Database.connect(settings, dsn, size=1) as database:
        await prepare(database)
        return await action(database, settings, resource)
