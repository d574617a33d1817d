"""`shm token`: lists, creates, rotates and removes API tokens, directly in the database.

It needs access to the database and no token. Standard output contains only the result, so a new token can be piped.
A token that cannot be printed is not created.
"""

import argparse
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from uuid import UUID

from shm.auth.tokens import Role, Token, TokenStore, encode_page_token
from shm.cli import database_command
from shm.cli.terminal import (
    check_output,
    flush_results,
    print_message,
    print_result,
    print_table,
    strip_control_characters,
)
from shm.core.settings import Settings
from shm.core.settings.flags import add_flags
from shm.core.settings.parsers import parse_duration
from shm.db.database import Database
from shm.db.migrations import check_schema, migrate

HELP = "List, create, rotate and remove API tokens, directly in the database."

PAGE_SIZE = 500
COLUMN_TITLES = ("id", "role", "created", "expires", "last used", "name")

Action = Callable[[argparse.Namespace, TokenStore], Coroutine[object, object, None]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands, each with the flags of `shm migrate`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_subcommand(commands, "list", _list, "List all tokens without their secrets, newest first.")
    add = _add_subcommand(commands, "add", _create, "Create a token and print it. It is not shown again.")
    add.add_argument("name", metavar="NAME", help="A name for lists, such as that of its script.")
    add.add_argument(
        "--role",
        choices=["viewer", "admin"],
        default="viewer",
        help="A viewer reads, an admin also changes. Default: viewer.",
    )
    add.add_argument(
        "--expires",
        metavar="…",
        type=_duration,
        help="Lifetime, such as 90d or 12h. Default: unlimited.",
    )
    rotate = _add_subcommand(
        commands, "rotate", _rotate, "Replace the secret of a token and print the new one. The old one ends at once."
    )
    rotate.add_argument("id", metavar="ID", type=_token_id, help="Its ID, as `shm token list` shows it.")
    remove = _add_subcommand(commands, "remove", _remove, "Remove a token, with immediate effect in every server.")
    remove.add_argument("id", metavar="ID", type=_token_id, help="Its ID, as `shm token list` shows it.")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    action: Action = args.action

    async def act(database: Database, settings: Settings) -> int:
        await action(args, TokenStore(database, settings))
        return 0

    return database_command.run(args, act, prepare=check_schema if action is _list else migrate)


async def _list(_: argparse.Namespace, tokens: TokenStore) -> None:
    rows: list[tuple[str, ...]] = [COLUMN_TITLES]
    page = await tokens.list_page(None, PAGE_SIZE)
    while page:
        rows += [_row(token) for token in page]
        page = await tokens.list_page(encode_page_token(page[-1]), PAGE_SIZE)
    print_table(rows)


async def _create(args: argparse.Namespace, tokens: TokenStore) -> None:
    check_output()
    issued = await tokens.create(args.name, Role[args.role.upper()], args.expires)
    expiry = "without expiry" if issued.expires_at is None else f"valid until {_format_time(issued.expires_at)}"
    print_message(f"Created a token with the role {issued.role}, {expiry}, ID {issued.id}. It is shown only now:")
    try:
        print_result(issued.token)
        flush_results()
    except BaseException:
        await tokens.delete(issued.id)
        print_message("It was removed again, because it could not be printed.")
        raise


async def _rotate(args: argparse.Namespace, tokens: TokenStore) -> None:
    check_output()
    issued = await tokens.rotate(args.id)
    name = strip_control_characters(issued.name)
    print_message(f"Replaced the secret of {issued.id} ({name}), with immediate effect in every server.")
    if issued.is_servers_own:
        print_message("It is in admin.token in the data directory.")
    try:
        print_result(issued.token)
        flush_results()
    except BaseException:
        print_message("The new one could not be printed: replace it again.")
        raise


async def _remove(args: argparse.Namespace, tokens: TokenStore) -> None:
    removed = await tokens.delete(args.id)
    print_message(f"Removed {removed.id} ({strip_control_characters(removed.name)}).")
    if removed.is_servers_own:
        print_message(
            "This is a server's own token. The next start makes it valid again, unless you first remove admin.token in "
            "the data directory or set another SHM_ADMIN_TOKEN."
        )


def _add_subcommand(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, action: Action, description: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description, description=description)
    add_flags(parser, *database_command.FLAGS)
    parser.set_defaults(action=action)
    return parser


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {error}") from None


def _token_id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError("expected an ID as `shm token list` shows it") from None


def _row(token: Token) -> tuple[str, ...]:
    expires = "never" if token.expires_at is None else _format_time(token.expires_at)
    used = "never" if token.last_used_on is None else token.last_used_on.isoformat()
    return (token.id, token.role, _format_time(token.created_at), expires, used, token.name)


def _format_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
