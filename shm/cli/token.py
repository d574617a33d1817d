"""`shm token`: lists, creates and removes API tokens, directly in the database.

It needs access to the database and no token. Standard output contains only the result, so a new token can be piped.
"""

import argparse
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from uuid import UUID

from shm.auth.tokens import Role, Token, TokenStore, encode_page_token
from shm.cli import database_command
from shm.cli.terminal import print_message, print_result, strip_control_characters
from shm.core.setting_types import parse_duration
from shm.core.settings import Settings, add_flags
from shm.db.database import Database
from shm.db.migrations import migrate

HELP = "List, make and remove API tokens, directly in the database."

PAGE = 500
TITLES = ("id", "role", "created", "expires", "last used", "name")

Action = Callable[[argparse.Namespace, TokenStore], Coroutine[object, object, None]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands, each with the flags of `shm migrate`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add(commands, "list", _list, "All tokens, newest first; never the tokens themselves.")
    add = _add(commands, "add", _make, "Make a token; it is printed, this once.")
    add.add_argument("name", metavar="NAME", help="What will use it. It is shown in lists.")
    add.add_argument(
        "--role",
        choices=["viewer", "admin"],
        default="viewer",
        help="A viewer reads, an admin also changes. Default: viewer.",
    )
    add.add_argument("--expires", metavar="…", type=_duration, help="Ends by itself after 90d, or 12h. Default: never.")
    remove = _add(commands, "remove", _remove, "Remove a token: it is none at once, in every server.")
    remove.add_argument("id", metavar="ID", type=_token_id, help="As `shm token list` shows it.")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    action: Action = args.action

    async def act(database: Database, settings: Settings) -> int:
        await migrate(database)
        await action(args, TokenStore(database, settings))
        return 0

    return database_command.run(args, act)


async def _list(_: argparse.Namespace, tokens: TokenStore) -> None:
    rows: list[tuple[str, ...]] = [TITLES]
    page = await tokens.list_page(None, PAGE)
    while page:
        rows += [_row(token) for token in page]
        page = await tokens.list_page(encode_page_token(page[-1]), PAGE)
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    for row in rows:
        print_result("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


async def _make(args: argparse.Namespace, tokens: TokenStore) -> None:
    issued = await tokens.create(args.name, Role[args.role.upper()], args.expires)
    until = "without an end" if issued.expires_at is None else f"until {_moment(issued.expires_at)}"
    print_message(f"A token for the role {issued.role}, {until}; its ID is {issued.id}. It is shown this once:")
    print_result(issued.token)


async def _remove(args: argparse.Namespace, tokens: TokenStore) -> None:
    removed = await tokens.delete(args.id)
    print_message(f"Removed {removed.id} ({strip_control_characters(removed.name)}).")
    if removed.is_servers_own:
        print_message(
            "It was a server's own: the next start makes it valid again, unless you remove admin.token in the data"
        )
        print_message("directory, or set another SHM_ADMIN_TOKEN, before.")


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, action: Action, description: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description, description=description)
    add_flags(parser, *database_command.FLAGS)
    parser.set_defaults(action=action)
    return parser


def _duration(written: str) -> timedelta:
    try:
        return parse_duration(written)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {error}") from None


def _token_id(written: str) -> str:
    try:
        return str(UUID(written))
    except ValueError:
        raise argparse.ArgumentTypeError("expected an ID as `shm token list` shows it") from None


def _row(token: Token) -> tuple[str, ...]:
    ends = "never" if token.expires_at is None else _moment(token.expires_at)
    used = "never" if token.last_used_on is None else token.last_used_on.isoformat()
    return (token.id, token.role, _moment(token.created_at), ends, used, strip_control_characters(token.name))


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
