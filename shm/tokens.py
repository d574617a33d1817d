"""Who may read and who may change: bearer tokens with a role, stored as their SHA-256.

A token is 32 random bytes, so its hash can be looked up as it is: there is nothing to guess step by step.
"""

import hashlib
import logging
import os
import secrets
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from shm.database import Database
from shm.errors import ConfigurationError, Unauthorized
from shm.settings import Settings

logger = logging.getLogger(__name__)

TOKEN_FILE = "admin.token"  # noqa: S105 - a file's name
TOKEN_BYTES = 32
SHORTEST_TOKEN = 20  # characters of SHM_ADMIN_TOKEN; anything shorter can be guessed


class Role(IntEnum):
    """What a request needs, or a token gives; a higher one includes the lower ones."""

    PUBLIC = 0  # nothing
    INSTALL = 1  # a request that an install signs itself
    VIEWER = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class _Granted:
    role: str


class Tokens:
    """The tokens of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def given(authorization: str | None) -> bytes:
        """The hash of the token in an `Authorization: Bearer …` header. Raises Unauthorized where there is none."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized(
                "missing_token", "A token is wanted: `Authorization: Bearer …`.", {"WWW-Authenticate": "Bearer"}
            )
        return _hash(token.strip())

    async def role(self, token: bytes) -> Role | None:
        """What the bearer of a token, given as its hash, may do; None where it is not valid."""
        row = await self._database.fetch_one(_Granted, "tokens.role", token_hash=token)
        return None if row is None else Role[row.role.upper()]

    async def ensure_admin(self, settings: Settings) -> Path | None:
        """Makes the admin token valid: SHM_ADMIN_TOKEN, or the data directory's, made if there is none.

        Returns the file that holds it, None where the environment does.
        """
        if settings.admin_token is not None:
            if len(settings.admin_token) < SHORTEST_TOKEN:
                raise ConfigurationError(f"SHM_ADMIN_TOKEN is shorter than {SHORTEST_TOKEN} characters.")
            hashed = _hash(settings.admin_token)
            await self._database.fetch(_Granted, "tokens.forget_others", name="SHM_ADMIN_TOKEN", token_hash=hashed)
            await self._ensure(hashed, "SHM_ADMIN_TOKEN")
            return None
        file = settings.data_dir / TOKEN_FILE
        await self._ensure(_hash(_read_or_make(file)), TOKEN_FILE)
        return file

    async def _ensure(self, hashed: bytes, name: str) -> None:
        await self._database.fetch(_Granted, "tokens.ensure", token_hash=hashed, role="admin", name=name)


def _read_or_make(file: Path) -> str:
    """The token in `file`; a new one, mode 0600, where there is no such file. One winner among processes."""
    try:
        if not file.exists():
            _make(file)
        token = file.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"The admin token in {file} cannot be read or made: {error.strerror}.") from None
    if len(token) < SHORTEST_TOKEN:
        raise ConfigurationError(f"{file} holds no token; remove it and the next start makes one.")
    return token


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as handle:
            handle.write(f"shm_{secrets.token_urlsafe(TOKEN_BYTES)}\n")
            handle.flush()
            os.fsync(descriptor)
        os.link(fresh, file)
        logger.info("made an admin token in %s", file)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
