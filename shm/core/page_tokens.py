"""Page tokens of lists (keyset pagination): the sort timestamp and the ID of a page's last row.

The server puts the token into the `Link` header, and the client sends it back as `after`.
"""

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from shm.core.errors import BadRequest


def encode_page_token(timestamp: datetime | None, row_id: str) -> str:
    """The `after` of the next page. `timestamp` is the sort key of the last row, None if it has none."""
    return f"{'' if timestamp is None else format_timestamp(timestamp)}_{row_id}"


def format_timestamp(timestamp: datetime) -> str:
    """RFC 3339 with `Z`. Also the page token of a list that is sorted by a unique timestamp."""
    return timestamp.isoformat().replace("+00:00", "Z")


def decode_page_token(after: str) -> tuple[datetime | str, str]:
    """The timestamp (PostgreSQL's `-infinity` if there is none) and the ID. Raises BadRequest for an invalid token."""
    timestamp, _, row_id = after.rpartition("_")
    try:
        return parse_timestamp(timestamp) if timestamp else "-infinity", str(msgspec.convert(row_id, UUID))
    except msgspec.ValidationError:
        raise invalid_page_token() from None


def parse_timestamp(after: str) -> datetime:
    """The timestamp that `format_timestamp` wrote. Raises BadRequest for anything else."""
    try:
        return msgspec.convert(after, datetime).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise invalid_page_token() from None


def invalid_page_token() -> BadRequest:
    """The refusal of a token that the server did not issue."""
    return BadRequest("bad_after", "after is not a page token: copy it unchanged from the Link header.")
