"""`shm ssh`: serves the console over SSH; `add`, `list` and `remove` manage the authorized keys.

The server of consoles needs no database: it presents the token of each key to the API. The other commands use the
database directly, as `shm token` does. `shm --help` imports this module, so only what runs imports asyncssh.
"""

import argparse
import asyncio
import os

from shm.auth.tokens import TokenStore
from shm.cli import database_command
from shm.core import logs
from shm.core.file_limit import raise_file_limit
from shm.core.settings import Settings, SshSettings
from shm.core.settings.flags import add_flags
from shm.core.signals import call_on_signals, exit_on_signals
from shm.db.database import Database
from shm.db.migrations import check_schema, migrate

HELP = "Serve the console over SSH, to the keys that are added with `shm ssh add`."


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the server and the subcommands for keys."""
    add_flags(parser, settings=SshSettings)
    add_flags(parser, "data_dir")
    parser.set_defaults(key_command=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    _add_subcommand(commands, "list", "List the authorized keys.")
    add = _add_subcommand(commands, "add", "Authorize a public key, with an API token of its own.")
    add.add_argument("name", metavar="NAME", help="The user of the key, for lists and the audit trail.")
    add.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="-",
        help="The public key, such as id_ed25519.pub. Default: standard input.",
    )
    add.add_argument(
        "--role",
        choices=["viewer", "admin"],
        default="viewer",
        help="A viewer reads, an admin also changes. Default: viewer.",
    )
    remove = _add_subcommand(commands, "remove", "Remove a key and its token. Its consoles end within seconds.")
    remove.add_argument("name", metavar="NAME", help="As `shm ssh list` shows it.")


def _add_subcommand(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, description: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description, description=description)
    add_flags(parser, *database_command.FLAGS)
    parser.set_defaults(key_command=name)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the server or the subcommand."""
    if args.key_command is None:
        return database_command.run_for_status(lambda: _serve(args))
    from shm.cli.ssh.authorized_keys import AuthorizedKeys
    from shm.cli.ssh.key_commands import add_key, list_keys, remove_key

    action = {"list": list_keys, "add": add_key, "remove": remove_key}[args.key_command]

    async def act(database: Database, settings: Settings) -> int:
        await action(args, AuthorizedKeys(settings.data_dir), TokenStore(database, settings))
        return 0

    return database_command.run(args, act, prepare=check_schema if action is list_keys else migrate)


def _serve(args: argparse.Namespace) -> int:
    from shm.cli.ssh import host_key
    from shm.cli.ssh.authorized_keys import AuthorizedKeys
    from shm.cli.ssh.console_process import start_fork_server
    from shm.cli.ssh.server import SshServer

    async def serve() -> None:
        stop = asyncio.Event()
        with call_on_signals(stop.set):
            await server.run(stop)

    logs.install_hooks()
    settings = database_command.load_settings({"data_dir": args.data_dir})
    ssh_settings = SshSettings.load(os.environ, vars(args))
    raise_file_limit()
    with exit_on_signals():
        key = host_key.load_or_create(settings.data_dir)
        server = SshServer(ssh_settings, AuthorizedKeys(settings.data_dir), key)
        start_fork_server()
        asyncio.run(serve())
    return 0
