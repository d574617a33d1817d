"""The records of a complete export (`shm export --all`), one JSON object a line, and their limits. Pure.

The first line is the header, the last one counts the lines before it, so that an incomplete file is noticed. A record
comes after those that it refers to: applications, then their other names, then days, then pages of instances with the
snapshots of each page. docs/moving.md describes them. Times are RFC 3339, numbers keep their digits.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from shm.core.errors import BadRequest
from shm.core.json_types import Text, Uuid
from shm.core.metric_keys import MAX_OVERRIDES, Key, MetricOverride

FORMAT = "shm-export"
VERSION = 1  # of the format; a reader refuses a later one
MAX_LINE_BYTES = 8 * 2**20  # an application with 500 overrides, each with the longest description, has about 1 MiB
MAX_NUMBER_EXPONENT = 400  # of a day's total: a sum of doubles has less, and PostgreSQL would write 1e100000 in full

Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,100}\Z")]
Time = Annotated[datetime, msgspec.Meta(tz=True)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Header(msgspec.Struct, tag="header"):
    """The first line."""

    format: str
    version: int
    created_at: Time
    instances: Count  # about as many as follow, for the progress of an import


class ApplicationRecord(msgspec.Struct, tag="application"):
    """An application with the vendor's settings."""

    id: Uuid
    slug: Slug
    name: Text
    github_url: Text | None
    logo_url: Text | None
    stars: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    stars_updated_at: Time | None
    created_at: Time
    overrides: Annotated[dict[Key, MetricOverride], msgspec.Meta(max_length=MAX_OVERRIDES)]
    public_metrics: Annotated[list[Key], msgspec.Meta(max_length=MAX_OVERRIDES)]


class AliasRecord(msgspec.Struct, tag="alias"):
    """A name, as a slug, under which installs register with an application."""

    slug: Slug
    app_slug: Slug


class HistoryRecord(msgspec.Struct, tag="history"):
    """Raw snapshots are from `raw_since` on, beside the last one of each install that has been silent since.

    Days before `frozen_until` follow as they are.

    `database` identifies the hash key of the other database, in which an application has one history only.
    """

    database: Hash
    raw_since: Time
    frozen_until: Time


class DayRecord(msgspec.Struct, tag="day"):
    """The value of a KPI at the end of a day before `frozen_until`."""

    app_slug: Slug
    metric_type: Literal["number", "boolean", "version", "other_versions"]
    key: Key
    value: Key  # a version, or empty
    at: Time
    total: Decimal
    instances: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Absence(msgspec.Struct):
    """A time in which the install was lost."""

    lost_at: Time
    returned_at: Time


class SeenVersion(msgspec.Struct):
    """When the install first reported a version, if that snapshot is deleted."""

    version: Text
    app_slug: Slug
    first_at: Time


class InstanceRecord(msgspec.Struct, tag="instance"):
    """An install with its key, and what its snapshots do not contain."""

    instance_id: Uuid
    public_key: Hash
    status: Literal["pending", "active", "revoked"]
    app_slug: Slug
    app_name: Text
    app_version: Text
    environment: Text
    deployment_mode: Text
    os_arch: Text
    registered_at: Time
    first_seen_at: Time | None
    last_seen_at: Time | None
    revoked_at: Time | None
    erased_at: Time | None
    needs_approval: bool
    previous_app_slug: Slug | None
    hints: dict[str, object] | None
    absences: list[Absence]
    versions: list[SeenVersion]


class SnapshotRecord(msgspec.Struct, tag="snapshot"):
    """A raw snapshot. Its install is in the file before it."""

    instance_id: Uuid
    snapshot_at: Time
    received_at: Time
    app_version: Text
    app_slug: Slug
    sequence: Count | None
    metrics: dict[str, object]


class End(msgspec.Struct, tag="end"):
    """The last line. `records`: the number of lines before it."""

    records: Count


Record = Header | ApplicationRecord | AliasRecord | HistoryRecord | DayRecord | InstanceRecord | SnapshotRecord | End

_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record, float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")


def encode_record(record: object) -> bytes:
    """A line."""
    return _encoder.encode(record) + b"\n"


def decode_record(line: bytes) -> Record:
    """Parses a line. Raises BadRequest with a sentence that can follow the line's number."""
    try:
        record = _decoder.decode(line.decode())
    except msgspec.ValidationError as error:
        raise BadRequest("bad_field", f"{error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("bad_json", "not a JSON object in UTF-8") from None
    except ArithmeticError:  # from Decimal: the exponent has more than 18 digits
        raise BadRequest("number_out_of_range", "a number is beyond the range of a double") from None
    if isinstance(record, DayRecord) and abs(record.total.adjusted()) > MAX_NUMBER_EXPONENT:
        raise BadRequest("number_out_of_range", "the total of a day is beyond the range of a double")
    return record
