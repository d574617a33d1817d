"""Where a page of a list ended: a moment and an ID, written so that the next page can be asked for after it."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from shm.core.errors import BadRequest


def encode_page_token(moment: datetime | None, row_id: str) -> str:
    """What `after` of the next page is; `moment` is what the list is sorted by, None where a row has none."""
    return f"{'' if moment is None else format_timestamp(moment)}_{row_id}"


def format_timestamp(moment: datetime) -> str:
    """RFC 3339 with `Z`: the mark of a list that is sorted by nothing else."""
    return moment.isoformat().replace("+00:00", "Z")


def decode_page_token(after: str) -> tuple[datetime | str, str]:
    """The moment, PostgreSQL's `-infinity` where there is none, and the ID. Raises BadRequest for anything else."""
    moment, _, row_id = after.rpartition("_")
    try:
        return parse_timestamp(moment) if moment else "-infinity", str(msgspec.convert(row_id, UUID))
    except msgspec.ValidationError:
        raise invalid_page_token() from None


def parse_timestamp(after: str) -> datetime:
    """A moment that was `written`. Raises BadRequest for anything else."""
    try:
        return msgspec.convert(after, datetime).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise invalid_page_token() from None


def invalid_page_token() -> BadRequest:
    """The refusal for what no page ended with."""
    return BadRequest("bad_after", "after is no mark of a page: take it from the Link header as it is.")
