"""Who may read and who may change: bearer tokens with a role, stored as their SHA-256.

A token is 32 random bytes, so its hash can be looked up as it is: there is nothing to guess step by step. PostgreSQL
looks it up, each time anew, so a token that was removed or has ended is none at once in every server; nothing secret is
compared in Python.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from pathlib import Path

import msgspec

from shm.auth import token_file
from shm.auth.token_usage import TokenUsageWriter
from shm.core import page_tokens
from shm.core.errors import BadRequest, ConfigurationError, Conflict, NotFound, Unauthorized
from shm.core.json_types import Timestamp
from shm.core.settings import Settings
from shm.db.database import Database

MAX_NAME_LENGTH = 100  # characters, as in the schema: what uses a token, in a few words
NAME_OF_ENVIRONMENT = "SHM_ADMIN_TOKEN"
SERVER_NAMES = (
    NAME_OF_ENVIRONMENT,
    token_file.TOKEN_FILE,
)  # of the tokens that a server makes valid at each start


class Role(IntEnum):
    """What a request needs, or a token gives; a higher one includes the lower ones."""

    PUBLIC = 0  # nothing
    INSTALL = 1  # a request that an install signs itself
    VIEWER = 2
    ADMIN = 3


class Token(msgspec.Struct, frozen=True):
    """A token as it may be shown: without itself."""

    id: str
    name: str
    role: str
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_on: date | None

    @property
    def is_servers_own(self) -> bool:
        """Whether the next start makes it valid again."""
        return self.name in SERVER_NAMES


class IssuedToken(Token, frozen=True):
    """A new token, shown this once."""

    token: str


@dataclass(frozen=True, slots=True)
class Principal:
    """What the bearer of a valid token may do."""

    token_hash: bytes
    id: str
    role: Role


@dataclass(frozen=True, slots=True)
class _Found:
    token_hash: memoryview
    id: str
    role: str
    noted: bool


class TokenStore:
    """The tokens of one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._uses = TokenUsageWriter(database)

    async def run(self) -> None:
        """Writes down when tokens were last used, until cancelled."""
        await self._uses.run()

    @staticmethod
    def hash_bearer(authorization: str | None) -> bytes:
        """The hash of the token in an `Authorization: Bearer …` header. Raises Unauthorized where there is none."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized(
                "missing_token", "A token is wanted: `Authorization: Bearer …`.", {"WWW-Authenticate": "Bearer"}
            )
        return _hash(token.strip())

    async def authenticate(self, token_hash: bytes) -> Principal | None:
        """What the bearer of a token, given as its hash, may do; None where it is not valid."""
        return (await self.find_valid([token_hash])).get(token_hash)

    async def find_valid(self, token_hashes: Collection[bytes]) -> dict[bytes, Principal]:
        """Those of these tokens that are valid, by their hash. They are being used."""
        rows = await self._database.fetch(_Found, "tokens.select_principals", token_hashes=list(token_hashes))
        for row in rows:
            if not row.noted:
                self._uses.record(row.id)
        found = [Principal(bytes(row.token_hash), row.id, Role[row.role.upper()]) for row in rows]
        return {granted.token_hash: granted for granted in found}

    async def create(self, name: str, role: Role, expires_in: timedelta | None) -> IssuedToken:
        """A new token, which ends by itself after `expires_in`.

        Raises BadRequest for a name that cannot be, Conflict where there are too many.
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
                f"There are {self._settings.max_tokens} tokens already, as many as SHM_MAX_TOKENS allows: "
                "remove those that nobody uses.",
            )
        return IssuedToken(**msgspec.structs.asdict(added), token=token)

    async def list_page(self, after: str | None, most: int) -> list[Token]:
        """The next `most` tokens after a mark of `mark_of`, newest first. Raises BadRequest."""
        created, token_id = page_tokens.decode_page_token(after) if after is not None else (None, None)
        return await self._database.fetch(
            Token, "tokens.select_page", after_created=created, after_id=token_id, limit=most
        )

    async def delete(self, token_id: str, asking: Principal | None = None) -> Token:
        """Ends a token, and returns what it was.

        Raises NotFound, or Conflict where it is the one that is `asking`: who removes tokens keeps one to go on with.
        """
        found = await self._database.fetch_one(Token, "tokens.select_by_id", id=token_id)
        if found is None:
            raise NotFound("no_such_token", "There is no token of that ID.")
        if asking is not None and asking.id == found.id:
            raise Conflict("own_token", "This is the token that you are asking with; ask with another to remove it.")
        await self._database.execute("tokens.delete", id=token_id)
        return found

    async def ensure_admin_token(self) -> Path | None:
        """Makes the admin token valid: SHM_ADMIN_TOKEN, or the data directory's, made if there is none.

        Returns the file that holds it, None where the environment does.
        """
        given = self._settings.admin_token
        if given is not None:
            if len(given) < token_file.MIN_TOKEN_LENGTH:
                raise ConfigurationError(f"SHM_ADMIN_TOKEN is shorter than {token_file.MIN_TOKEN_LENGTH} characters.")
            await self._database.execute(
                "tokens.delete_others_of_name", name=NAME_OF_ENVIRONMENT, token_hash=_hash(given)
            )
            await self._ensure(given, NAME_OF_ENVIRONMENT)
            return None
        file = self._settings.data_dir / token_file.TOKEN_FILE
        await self._ensure(token_file.read_or_create(file), token_file.TOKEN_FILE)
        return file

    async def _ensure(self, token: str, name: str) -> None:
        await self._database.execute("tokens.upsert", token_hash=_hash(token), role="admin", name=name)


def encode_page_token(token: Token) -> str:
    """Where a page ended: what `after` of the next one is."""
    return page_tokens.encode_page_token(token.created_at, token.id)


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise BadRequest("bad_field", f"name cannot be used: wanted are 1 to {MAX_NAME_LENGTH} printable characters.")
    if name in SERVER_NAMES:
        raise BadRequest("bad_field", f"name cannot be {name}: the server's own token is called so.")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
