"""`shm migrate`: migrates the schema and does nothing else."""

import argparse
import logging

from shm.cli import database_command
from shm.core.settings import Settings
from shm.core.settings.flags import add_flags
from shm.db.database import Database
from shm.db.migrations import migrate

HELP = "Migrate the database's schema to this release; `shm serve` does this at its start."

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    add_flags(parser, *database_command.FLAGS)


def run(args: argparse.Namespace) -> int:
    """Migrates and logs the number of applied migrations."""
    return database_command.run(args, _succeed, prepare=_migrate)


async def _migrate(database: Database) -> None:
    count = await migrate(database)
    logger.info("the schema is up to date, %d migrations applied", count)


async def _succeed(_: Database, __: Settings) -> int:
    return 0
