"""The audit trail: what admins change, when, and with which token. Entries are kept for a year."""

from typing import Annotated

import msgspec

from shm.core import page_tokens
from shm.core.json_types import Timestamp
from shm.db.database import Database

SHORT_ID_DIGITS = 8  # of an instance's ID in an entry: enough to find it, too few to keep a deleted one


class AuditEntry(msgspec.Struct):
    """A change. `token_id` is the token that made it, null for a command on the server's machine.

    `target`: an application's slug, a token's ID, or the first digits of an instance's ID.
    """

    id: str
    at: Timestamp
    token_id: str | None
    action: str
    target: str
    details: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]


class AuditLog:
    """The audit trail of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, token_id: str | None, action: str, target: str, **details: object) -> None:
        """Adds an entry. A change is recorded before it is made, so that none is missing."""
        await self._database.execute(
            "audit.record",
            token_id=token_id,
            action=action,
            target=target,
            details=msgspec.json.encode(details).decode(),
        )

    async def list_page(self, after: str | None, limit: int) -> list[AuditEntry]:
        """The next entries after a page token, newest first. Raises BadRequest."""
        after_at, after_id = page_tokens.decode_page_token(after) if after is not None else (None, None)
        return await self._database.fetch(
            AuditEntry, "audit.select_page", after_at=after_at, after_id=after_id, limit=limit
        )


def encode_page_token(entry: AuditEntry) -> str:
    """The page token after this entry."""
    return page_tokens.encode_page_token(entry.at, entry.id)
