"""`shm ssh add`, `list` and `remove`: the authorized keys, and the API token of each, directly in the database."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from shm.auth.tokens import Role, Token, TokenStore
from shm.cli.ssh.authorized_keys import (
    MAX_PUBLIC_KEY_BYTES,
    AuthorizedKey,
    AuthorizedKeys,
    already_authorized,
    parse_public_key,
)
from shm.cli.terminal import print_message, print_table
from shm.core.errors import ConfigurationError, NotFound

COLUMN_TITLES = ("name", "role", "added", "last used", "fingerprint", "token")
REMOVED = "token removed"  # in place of a role: the server refuses the console of such a key
STANDARD_INPUT = "-"


async def list_keys(_: argparse.Namespace, keys: AuthorizedKeys, tokens: TokenStore) -> None:
    """Prints all keys by name."""
    rows: list[tuple[str, ...]] = [COLUMN_TITLES]
    for key in keys.list():
        token = await _find_token(tokens, key.token_id)
        role = REMOVED if token is None else token.role
        used = "never" if token is None or token.last_used_on is None else token.last_used_on.isoformat()
        rows.append((key.name, role, f"{key.added_at:%Y-%m-%d}", used, key.fingerprint, key.token_id))
    print_table(rows)


async def add_key(args: argparse.Namespace, keys: AuthorizedKeys, tokens: TokenStore) -> None:
    """Authorizes the key in a file. Raises ConfigurationError."""
    public_key = parse_public_key(_read(args.file))
    if existing := keys.find_conflict(args.name, public_key):
        raise already_authorized(existing)
    token = await tokens.create(f"{args.name} (SSH)", Role[args.role.upper()], None)
    key = AuthorizedKey(args.name, public_key, token.id, token.token, datetime.now(UTC))
    try:
        keys.add(key)
    except ConfigurationError:
        await tokens.delete(token.id)
        raise
    print_message(f"Authorized {key.fingerprint} as {token.role}, with the token {token.id} ({token.name}).")


async def remove_key(args: argparse.Namespace, keys: AuthorizedKeys, tokens: TokenStore) -> None:
    """Removes a key first and then its token, so that a crash leaves no key. Raises ConfigurationError."""
    key = keys.remove(args.name)
    if await _find_token(tokens, key.token_id) is not None:
        await tokens.delete(key.token_id)
    print_message(f"Removed {key.name} ({key.fingerprint}) and its token.")


async def _find_token(tokens: TokenStore, token_id: str) -> Token | None:
    try:
        return await tokens.get(token_id)
    except NotFound:
        return None


def _read(file: str) -> bytes:
    """The beginning of a file, long enough for a public key. Raises ConfigurationError."""
    try:
        if file == STANDARD_INPUT:
            return sys.stdin.buffer.read(MAX_PUBLIC_KEY_BYTES)
        with Path(file).open("rb") as opened:
            return opened.read(MAX_PUBLIC_KEY_BYTES)
    except OSError as error:
        raise ConfigurationError(f"The public key in {file} cannot be read: {error.strerror}.") from None
