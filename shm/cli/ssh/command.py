"""`shm ssh`: serves the console over SSH; `add`, `list` and `remove` manage the authorized keys.

The server of consoles needs no database: it presents the token of each key to the API. The other commands use the
database directly, as `shm token` does.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shm.auth.tokens import Role, Token, TokenStore
from shm.cli import database_command
from shm.cli.terminal import print_message, print_table
from shm.core import logs
from shm.core.errors import ConfigurationError, NotFound
from shm.core.file_limit import raise_file_limit
from shm.core.settings import Settings, add_flags
from shm.core.signals import call_on_signals, exit_on_signals
from shm.core.ssh_settings import SshSettings
from shm.db.database import Database
from shm.db.migrations import check_schema, migrate

if TYPE_CHECKING:
    from shm.cli.ssh.server import SshServer

HELP = "Serve the console over SSH, to the keys that are added with `shm ssh add`."

COLUMN_TITLES = ("name", "role", "added", "last used", "fingerprint", "token")
REMOVED = "token removed"  # in place of a role: the key can log in no longer
STANDARD_INPUT = "-"

Action = Callable[[argparse.Namespace, Settings, TokenStore], Coroutine[object, object, None]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the server and the subcommands for keys."""
    add_flags(parser, settings=SshSettings)
    add_flags(parser, "data_dir")
    parser.set_defaults(action=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    _add_subcommand(commands, "list", _list, "List the authorized keys.")
    add = _add_subcommand(commands, "add", _add, "Authorize a public key, with an API token of its own.")
    add.add_argument("name", metavar="NAME", help="The user of the key, for lists and the audit trail.")
    add.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default=STANDARD_INPUT,
        help="The public key, such as id_ed25519.pub. Default: standard input.",
    )
    add.add_argument(
        "--role",
        choices=["viewer", "admin"],
        default="viewer",
        help="A viewer reads, an admin also changes. Default: viewer.",
    )
    remove = _add_subcommand(
        commands, "remove", _remove, "Remove a key and its token. Its consoles end within seconds."
    )
    remove.add_argument("name", metavar="NAME", help="As `shm ssh list` shows it.")


def run(args: argparse.Namespace) -> int:
    """Runs the server or the subcommand."""
    action: Action | None = args.action
    if action is None:
        return database_command.run_for_status(lambda: _serve(args))

    async def act(database: Database, settings: Settings) -> int:
        await action(args, settings, TokenStore(database, settings))
        return 0

    return database_command.run(args, act, prepare=check_schema if action is _list else migrate)


def _serve(args: argparse.Namespace) -> int:
    from shm.cli.ssh import host_key
    from shm.cli.ssh.authorized_keys import AuthorizedKeys
    from shm.cli.ssh.console_process import start_fork_server
    from shm.cli.ssh.server import SshServer

    logs.install_hooks()
    settings = database_command.load_settings({"data_dir": args.data_dir})
    ssh_settings = SshSettings.load(os.environ, vars(args))
    raise_file_limit()
    with exit_on_signals():
        server = SshServer(ssh_settings, AuthorizedKeys(settings.data_dir), host_key.load_or_create(settings.data_dir))
        start_fork_server()
        asyncio.run(_run_until_signalled(server))
    return 0


async def _run_until_signalled(server: "SshServer") -> None:
    stop = asyncio.Event()
    with call_on_signals(stop.set):
        await server.run(stop)


async def _list(_: argparse.Namespace, settings: Settings, tokens: TokenStore) -> None:
    from shm.cli.ssh.authorized_keys import AuthorizedKeys

    rows: list[tuple[str, ...]] = [COLUMN_TITLES]
    for key in AuthorizedKeys(settings.data_dir).list():
        token = await _find_token(tokens, key.token_id)
        role = REMOVED if token is None else token.role
        used = "never" if token is None or token.last_used_on is None else token.last_used_on.isoformat()
        rows.append((key.name, role, f"{key.added_at:%Y-%m-%d}", used, key.fingerprint, key.token_id))
    print_table(rows)


async def _find_token(tokens: TokenStore, token_id: str) -> Token | None:
    try:
        return await tokens.get(token_id)
    except NotFound:
        return None


async def _add(args: argparse.Namespace, settings: Settings, tokens: TokenStore) -> None:
    from shm.cli.ssh.authorized_keys import AuthorizedKey, AuthorizedKeys, already_authorized, parse_public_key

    public_key = parse_public_key(_read(args.file))
    keys = AuthorizedKeys(settings.data_dir)
    if existing := keys.find_conflict(args.name, public_key):
        raise already_authorized(existing)
    token = await tokens.create(token_name(args.name), Role[args.role.upper()], None)
    key = AuthorizedKey(args.name, public_key, token.id, token.token, datetime.now(UTC))
    try:
        keys.add(key)
    except ConfigurationError:
        await tokens.delete(token.id)
        raise
    print_message(f"Authorized {key.fingerprint} as {token.role}, with the token {token.id} ({token.name}).")


async def _remove(args: argparse.Namespace, settings: Settings, tokens: TokenStore) -> None:
    from shm.cli.ssh.authorized_keys import AuthorizedKeys

    key = AuthorizedKeys(settings.data_dir).remove(args.name)
    if await _find_token(tokens, key.token_id) is not None:
        await tokens.delete(key.token_id)
    print_message(f"Removed {key.name} ({key.fingerprint}) and its token.")


def token_name(name: str) -> str:
    """The name of a key's token, in the list of tokens and the audit trail."""
    return f"{name} (SSH)"


def _read(file: str) -> bytes:
    """The beginning of a file, long enough for a public key. Raises ConfigurationError."""
    from shm.cli.ssh.authorized_keys import MAX_PUBLIC_KEY_BYTES

    try:
        if file == STANDARD_INPUT:
            return sys.stdin.buffer.read(MAX_PUBLIC_KEY_BYTES)
        with Path(file).open("rb") as opened:
            return opened.read(MAX_PUBLIC_KEY_BYTES)
    except OSError as error:
        raise ConfigurationError(f"The public key in {file} cannot be read: {error.strerror}.") from None


def _add_subcommand(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, action: Action, description: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description, description=description)
    add_flags(parser, *database_command.FLAGS)
    parser.set_defaults(action=action)
    return parser
