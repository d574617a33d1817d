"""Where a page of a list ended: a moment and an ID, written so that the next page can be asked for after it."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from shm.errors import BadRequest


def mark(moment: datetime | None, row_id: str) -> str:
    """What `after` of the next page is; `moment` is what the list is sorted by, None where a row has none."""
    written = "" if moment is None else moment.isoformat().replace("+00:00", "Z")
    return f"{written}_{row_id}"


def read(after: str) -> tuple[datetime | str, str]:
    """The moment, PostgreSQL's `-infinity` where there is none, and the ID. Raises BadRequest for anything else."""
    written, _, row_id = after.rpartition("_")
    try:
        row_id = str(msgspec.convert(row_id, UUID))
        return (msgspec.convert(written, datetime).astimezone(UTC) if written else "-infinity"), row_id
    except (msgspec.ValidationError, OverflowError):
        raise BadRequest("bad_after", "after is no mark of a page: take it from the Link header as it is.") from None
