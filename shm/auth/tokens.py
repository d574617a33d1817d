"""Bearer tokens with a role, stored as their SHA-256.

A token has 32 random bytes, so an unsalted hash suffices and timing reveals nothing useful. Each request looks the hash
up in PostgreSQL: a deleted or expired token is invalid at once in all servers, and Python compares no secrets.
"""

import asyncio
import hashlib
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from pathlib import Path

import msgspec

from shm.auth import token_file
from shm.auth.audit import AuditLog
from shm.auth.token_usage import TokenUsageWriter
from shm.core import page_tokens
from shm.core.errors import BadRequest, ConfigurationError, Conflict, NotFound, Unauthorized
from shm.core.json_types import Timestamp
from shm.core.settings import Settings
from shm.db.database import Database

MAX_NAME_LENGTH = 100  # characters, as in the schema: a few words about the user of the token
ENVIRONMENT_TOKEN_NAME = "SHM_ADMIN_TOKEN"  # noqa: S105 - a variable's name
BANNED_LOOKUP_PAUSE_S = 0.25  # before the tokens of banned addresses are looked up; a bearer there waits so long

RESERVED_NAMES = (ENVIRONMENT_TOKEN_NAME, token_file.TOKEN_FILE)  # of the tokens that each start makes valid


class Role(IntEnum):
    """The role of a token, or the one that a request requires; a higher role includes the lower ones."""

    PUBLIC = 0  # no token
    VIEWER = 1
    ADMIN = 2


class Token(msgspec.Struct, frozen=True):
    """A token without its secret."""

    id: str
    name: str
    role: str
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_on: date | None

    @property
    def is_servers_own(self) -> bool:
        """Whether the next start of a server makes it valid again, even after it is deleted."""
        return self.name in RESERVED_NAMES


class IssuedToken(Token, frozen=True):
    """A new token with its secret, which is shown only once."""

    token: str


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated bearer of a valid token."""

    token_hash: bytes
    id: str
    role: Role


@dataclass(frozen=True, slots=True)
class _Row:
    token_hash: memoryview
    id: str
    role: str
    is_use_recorded: bool  # for today


@dataclass(frozen=True, slots=True)
class _Hash:
    token_hash: memoryview


class TokenStore:
    """The tokens of one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._usage_writer = TokenUsageWriter(database)
        self._audit = AuditLog(database)
        self._next_hashes: asyncio.Task[frozenset[bytes]] | None = None

    async def run(self) -> None:
        """Records the last use of tokens until cancelled."""
        await self._usage_writer.run()

    @staticmethod
    def hash_bearer(authorization: str | None) -> bytes:
        """The SHA-256 of the token in an `Authorization: Bearer …` header. Raises Unauthorized if there is none."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized(
                "missing_token", "A token is required: `Authorization: Bearer …`.", {"WWW-Authenticate": "Bearer"}
            )
        return _hash(token.strip())

    async def authenticate(self, token_hash: bytes) -> Principal | None:
        """The bearer of the token with this hash; None if the token is invalid. Records the use."""
        return (await self.find_valid([token_hash])).get(token_hash)

    async def is_valid(self, token_hash: bytes) -> bool:
        """Whether a token from a banned address is valid: the guesses of others must not lock its bearer out.

        All requests that wait share one statement, which a pause precedes. So guesses cost the database next to
        nothing, and their number has a bound.
        """
        if self._next_hashes is None:
            self._next_hashes = asyncio.create_task(self._read_hashes())
        return token_hash in await asyncio.shield(self._next_hashes)

    async def _read_hashes(self) -> frozenset[bytes]:
        await asyncio.sleep(BANNED_LOOKUP_PAUSE_S)
        self._next_hashes = None  # a later request needs a later read: its token may be newer than this one
        rows = await self._database.fetch(_Hash, "tokens.select_hashes", limit=2 * self._settings.max_tokens)
        return frozenset(bytes(row.token_hash) for row in rows)

    async def find_valid(self, token_hashes: Collection[bytes]) -> dict[bytes, Principal]:
        """The bearers of the valid ones of these tokens, by hash. Records their use."""
        rows = await self._database.fetch(_Row, "tokens.select_principals", token_hashes=list(token_hashes))
        for row in rows:
            if not row.is_use_recorded:
                self._usage_writer.record(row.id)
        principals = [Principal(bytes(row.token_hash), row.id, Role[row.role.upper()]) for row in rows]
        return {principal.token_hash: principal for principal in principals}

    async def create(
        self, name: str, role: Role, expires_in: timedelta | None, principal: Principal | None = None
    ) -> IssuedToken:
        """Creates a token, which expires after `expires_in`, at the request of `principal`; None: of a command.

        Raises BadRequest for an invalid name, Conflict if there are too many tokens.
        """
        _check_name(name)
        token = token_file.generate_token()
        added = await self._database.fetch_one(
            Token,
            "tokens.insert",
            token_hash=_hash(token),
            role=role.name.lower(),
            name=name,
            expires_in=expires_in,
            limit=self._settings.max_tokens,
        )
        if added is None:
            raise Conflict(
                "too_many_tokens",
                f"The maximum of {self._settings.max_tokens} tokens (SHM_MAX_TOKENS) is reached; delete unused ones.",
            )
        await self._record(principal, "create_token", added)
        return IssuedToken(**msgspec.structs.asdict(added), token=token)

    async def rotate(self, token_id: str, principal: Principal | None = None) -> IssuedToken:
        """Replaces the secret of a token, which keeps its ID, name, role and expiry. The old secret is invalid at once.

        One statement replaces it: a crash leaves either the old secret or the new one valid. Of the server's own token,
        the file in the data directory is replaced too. Raises NotFound, or Conflict.
        """
        token = await self.get(token_id)
        if token.name == ENVIRONMENT_TOKEN_NAME:
            raise Conflict(
                "servers_own_token", "Set another SHM_ADMIN_TOKEN and restart the servers to replace this token."
            )
        is_in_file = token.name == token_file.TOKEN_FILE
        if is_in_file and principal is not None:
            raise Conflict("servers_own_token", "Replace this token with `shm token rotate` on the server's machine.")
        secret = token_file.generate_token()
        if not is_in_file:
            await self._record(principal, "rotate_token", token)
            return await self._replace_secret(token_id, secret, None)
        file = self._settings.data_dir / token_file.TOKEN_FILE
        if not file.exists():  # `locked` would create a file in any directory
            raise _not_in_file(file)
        with token_file.locked(file):
            await self._resolve_staged(file)
            old_hash = await self._hash_of_file(token, file)
            await self._record(principal, "rotate_token", token)
            token_file.stage(file, secret)  # `_resolve_staged` uses or discards it after a crash
            try:
                issued = await self._replace_secret(token_id, secret, old_hash)
            except NotFound:
                token_file.discard_staged(file)
                raise
            token_file.publish_staged(file)
        return issued

    async def _replace_secret(self, token_id: str, secret: str, old_hash: bytes | None) -> IssuedToken:
        """Replaces the secret in the database; with `old_hash`, only if that is the present one. Raises NotFound."""
        rotated = await self._database.fetch_one(
            Token, "tokens.rotate", id=token_id, token_hash=_hash(secret), old_hash=old_hash
        )
        if rotated is None:
            raise NotFound("no_such_token", "No token has this ID.")
        return IssuedToken(**msgspec.structs.asdict(rotated), token=secret)

    async def _resolve_staged(self, file: Path) -> None:
        """Completes or undoes a rotation of the token in `file` whose process ended in its middle.

        The database decides: if it has the staged token, the one in the file is invalid.
        """
        staged = token_file.read_staged(file)
        if staged and await self.find_valid([_hash(staged)]):
            token_file.publish_staged(file)
        else:
            token_file.discard_staged(file)

    async def list_page(self, after: str | None, limit: int) -> list[Token]:
        """The next `limit` tokens after a page token, newest first. Raises BadRequest."""
        after_created, after_id = page_tokens.decode_page_token(after) if after is not None else (None, None)
        return await self._database.fetch(
            Token, "tokens.select_page", after_created=after_created, after_id=after_id, limit=limit
        )

    async def delete(self, token_id: str, principal: Principal | None = None) -> Token:
        """Deletes a token and returns it.

        Raises NotFound, or Conflict for the token of `principal` itself: an admin must not lose access by accident.
        """
        token = await self.get(token_id)
        if principal is not None and principal.id == token.id:
            raise Conflict("own_token", "This token authenticates the request; delete it with another token.")
        await self._record(principal, "delete_token", token)
        await self._database.execute("tokens.delete", id=token_id)
        return token

    async def get(self, token_id: str) -> Token:
        """The token with this ID. Raises NotFound."""
        token = await self._database.fetch_one(Token, "tokens.select_by_id", id=token_id)
        if token is None:
            raise NotFound("no_such_token", "No token has this ID.")
        return token

    async def _record(self, principal: Principal | None, action: str, token: Token) -> None:
        token_id = None if principal is None else principal.id
        await self._audit.record(token_id, action, token.id, name=token.name, role=token.role)

    async def _hash_of_file(self, token: Token, file: Path) -> bytes:
        """The hash of the token in the file. Raises ConfigurationError if the file contains another token."""
        token_hash = _hash(token_file.read_existing(file))
        principal = (await self.find_valid([token_hash])).get(token_hash)
        if principal is None or principal.id != token.id:
            raise _not_in_file(file)
        return token_hash

    async def ensure_admin_token(self) -> Path | None:
        """Makes the admin token valid: SHM_ADMIN_TOKEN, or the token file of the data directory, created if missing.

        Returns the path of the token file, None for SHM_ADMIN_TOKEN.
        """
        token = self._settings.admin_token
        if token is not None:
            if not token_file.is_usable(token):
                raise ConfigurationError(
                    f"SHM_ADMIN_TOKEN is invalid: at least {token_file.MIN_TOKEN_LENGTH} letters, digits and signs of "
                    "ASCII are required, without a space."
                )
            await self._database.execute(
                "tokens.delete_others_of_name", name=ENVIRONMENT_TOKEN_NAME, token_hash=_hash(token)
            )
            await self._upsert(token, ENVIRONMENT_TOKEN_NAME)
            return None
        file = self._settings.data_dir / token_file.TOKEN_FILE
        with ExitStack() as lock:
            if file.exists():  # a rotation may be in progress, or have been interrupted
                try:
                    lock.enter_context(token_file.locked(file))
                except ConfigurationError:  # without write access no rotation is possible either
                    pass
                else:
                    await self._resolve_staged(file)
            await self._upsert(token_file.read_or_create(file), token_file.TOKEN_FILE)
        return file

    async def _upsert(self, token: str, name: str) -> None:
        await self._database.execute("tokens.upsert", token_hash=_hash(token), role="admin", name=name)


def encode_page_token(token: Token) -> str:
    """The page token after this token: the parameter `after` of the next page."""
    return page_tokens.encode_page_token(token.created_at, token.id)


def _not_in_file(file: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{file} does not contain this token. Name the data directory of its server with --data-dir."
    )


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise BadRequest("bad_field", f"name is invalid: 1 to {MAX_NAME_LENGTH} printable characters are required.")
    if name in RESERVED_NAMES:
        raise BadRequest("bad_field", f"name cannot be {name}: it is reserved for the server's own token.")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
