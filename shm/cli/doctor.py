"""`shm doctor`: checks settings, machine, database and address of a server, and names the remedy of each fault.

It changes nothing. Standard output has a line for each check. The exit status is 1 if something is an error.
"""

import argparse
import platform

import shm
from shm.auth.token_file import TOKEN_FILE, read_existing
from shm.cli import database_command
from shm.cli.terminal import print_result, strip_control_characters
from shm.core.errors import ConfigurationError
from shm.core.file_limit import raise_file_limit
from shm.core.settings import Settings
from shm.core.settings.flags import add_flags
from shm.core.signals import run_cancellable
from shm.db.database import Database
from shm.db.migrations import check_schema
from shm.server.checks.address import check_own_address, check_public_address
from shm.server.checks.backup import check_backup
from shm.server.checks.database import check_database
from shm.server.checks.finding import Finding, Level
from shm.server.checks.machine import check_machine

HELP = "Check settings, machine, database and proxies, and name the remedy of each fault. It changes nothing."

INDENT = " " * 9  # of a remedy, below the text of its finding


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for every setting, as of `shm serve`, and the public address."""
    parser.add_argument("--url", metavar="URL", help="The public address, to check the proxy and its certificate too.")
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the findings."""
    url = vars(args).pop("url")

    def examine() -> int:
        raise_file_limit()
        settings = database_command.load_settings(vars(args))
        findings = [Finding(Level.OK, "version", f"SHM {shm.__version__}, Python {platform.python_version()}")]
        findings += check_machine(settings)
        findings += _examine_database(settings)
        findings += run_cancellable(_examine_addresses(settings, url))
        for finding in findings:
            _print(finding)
        return 1 if any(finding.level is Level.ERROR for finding in findings) else 0

    return database_command.run_for_status(examine)


def _examine_database(settings: Settings) -> list[Finding]:
    try:
        with database_command.open_dsn(settings, create=False) as (dsn, _):
            return run_cancellable(_check_database(settings, dsn))
    except ConfigurationError as error:  # a sentence with the remedy
        is_new = settings.dsn is None and not (settings.data_dir / "postgres").exists()
        return [Finding(Level.NOTE if is_new else Level.ERROR, "database", str(error))]


async def _check_database(settings: Settings, dsn: str) -> list[Finding]:
    async with Database.connect(settings, dsn, size=1) as database:
        await check_schema(database)
        return [*await check_database(database, settings), await check_backup(database)]


async def _examine_addresses(settings: Settings, url: str | None) -> list[Finding]:
    has_tls = settings.tls_cert is not None
    findings = [await check_own_address(settings.host, settings.port, has_tls=has_tls)] if settings.port else []
    if url is not None:
        token = settings.admin_token or read_existing(settings.data_dir / TOKEN_FILE) or None
        findings += [finding async for finding in check_public_address(url, token)]
    return findings


def _print(finding: Finding) -> None:
    text = f"{finding.subject}: {finding.text}".rstrip(".")
    print_result(strip_control_characters(f"{finding.level.name.lower():<8} {text}."))
    if finding.remedy:
        print_result(strip_control_characters(f"{INDENT}{finding.remedy}"))
