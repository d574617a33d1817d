"""Bodies of the requests that instances send: parses bytes into typed values, or raises a refusal. Pure.

The time is a parameter. Bodies other than a registration are parsed only as a `SignedBody`, after their signature was
verified. Values that PostgreSQL cannot store (NUL, lone surrogates, numbers beyond a double) are refused here and in
`shm.ingest.flattening`, so that one snapshot cannot make a whole batch fail.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeVar

import msgspec

from shm.core import slugs
from shm.core.errors import BadRequest, BadTimestamp, Forbidden, Refusal
from shm.core.settings import Settings
from shm.db.partitions import MAX_LEAD_TIME
from shm.ingest.flattening import Flattened, check_text, flatten
from shm.ingest.metric_hints import parse_hints
from shm.ingest.signatures import UUID, SignedBody, parse_public_key

INTEGER_OUT_OF_RANGE = "value out of range"  # msgspec's message for an integer of more than Python's 4,300 digits

T = TypeVar("T")

# These constraints appear in the OpenAPI document only: the parsers check them, so that each refusal has its own code.
_InstanceId = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]
_PublicKey = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^[0-9a-fA-F]{64}$"})]
_NonBlank = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": r"[^\s\x1c-\x1f\x85]|\ufeff"})]
_Timestamp = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "string", "format": "date-time"})]
_RawSnapshot = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/BacklogSnapshot"})]


class RegisterBody(msgspec.Struct):
    """The body of `POST /v1/register`, as the official clients send it. `timestamp`: of a signed one only.

    `hints`: what the developer says about metrics, by key. Of a signed registration with a timestamp only.
    """

    instance_id: _InstanceId
    public_key: _PublicKey
    app_name: _NonBlank
    app_version: str | None = None
    deployment_mode: str | None = None
    environment: str | None = None
    os_arch: str | None = None
    timestamp: _Timestamp | msgspec.UnsetType = msgspec.UNSET
    hints: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


class ActivateBody(msgspec.Struct):
    """The body of `POST /v1/activate`. The official clients send the same one at every start, without a timestamp."""

    timestamp: _Timestamp | msgspec.UnsetType = msgspec.UNSET


class BacklogSnapshot(msgspec.Struct):
    """A snapshot within a backlog."""

    timestamp: _Timestamp
    metrics: dict[str, object]
    app_version: str | None = None
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


class SnapshotBody(BacklogSnapshot, kw_only=True):
    """The body of `POST /v1/snapshot`."""

    instance_id: _InstanceId


class BacklogBody(msgspec.Struct):
    """The body of `POST /v1/snapshots`. Members are parsed one by one, so an invalid one does not affect the others."""

    instance_id: _InstanceId
    snapshots: list[_RawSnapshot]


class ActionBody(msgspec.Struct):
    """The body of `POST /v1/erase` and `/v1/disclose`; `action` is the last part of the path."""

    action: str
    instance_id: _InstanceId
    timestamp: _Timestamp


class RotateBody(ActionBody):
    """The body of `POST /v1/rotate`. A missing new key is refused like an invalid one."""

    new_public_key: _PublicKey | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Registration:
    """A parsed registration, which is not authenticated. `public_key` has 32 bytes; absent texts are empty."""

    instance_id: str
    public_key: bytes
    app_slug: str
    app_name: str
    app_version: str
    environment: str
    deployment_mode: str
    os_arch: str


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot with a valid signature by `public_key`.

    `app_slug` and `received_at`: only of one that is imported from another server of SHM.
    """

    instance_id: str
    public_key: bytes
    snapshot_at: datetime
    flattened: Flattened
    app_version: str | None
    sequence: int | None
    app_slug: str | None = None
    received_at: datetime | None = None


_register_decoder = msgspec.json.Decoder(RegisterBody)
_snapshot_decoder = msgspec.json.Decoder(SnapshotBody, float_hook=Decimal)
_metrics_decoder = msgspec.json.Decoder(dict[str, object], float_hook=Decimal)
_member_decoder = msgspec.json.Decoder(BacklogSnapshot, float_hook=Decimal)
_backlog_decoder = msgspec.json.Decoder(BacklogBody)
_object_decoder = msgspec.json.Decoder(dict[str, object], float_hook=Decimal)
_activate_decoder = msgspec.json.Decoder(ActivateBody)
_action_decoder = msgspec.json.Decoder(ActionBody)
_rotate_decoder = msgspec.json.Decoder(RotateBody)
_timestamp_decoder: msgspec.json.Decoder[datetime] = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)])
_string_decoder = msgspec.json.Decoder(str)


def parse_registration(body: bytes, settings: Settings) -> Registration:
    """Parses the body of a registration. Raises BadRequest."""
    fields = _decode(_register_decoder, body)
    instance_id = fields.instance_id.lower()
    if not UUID.fullmatch(instance_id):
        raise BadRequest("bad_instance_id", "instance_id is not a UUID such as c77af682-9aa4-412e-904a-c307d3a8a9c2.")
    public_key = parse_public_key("public_key", fields.public_key)
    if not fields.app_name.strip():
        raise BadRequest("bad_field", "app_name is empty.")
    return Registration(
        instance_id=instance_id,
        public_key=public_key,
        # The length is checked before the slug is made: the time for a slug grows with the length of the name.
        app_name=_parse_text("app_name", fields.app_name, settings.max_name),
        app_slug=slugs.make_slug(fields.app_name),
        app_version=_parse_text("app_version", fields.app_version or "", settings.max_name),
        environment=_parse_text("environment", fields.environment or "", settings.max_name),
        deployment_mode=_parse_text("deployment_mode", fields.deployment_mode or "", settings.max_name),
        os_arch=_parse_text("os_arch", fields.os_arch or "", settings.max_name),
    )


def parse_signed_registration(
    body: bytes, now: datetime, settings: Settings
) -> tuple[datetime | None, msgspec.Raw | None]:
    """The timestamp of a signed registration, as `parse_activation`, and its valid hints.

    A registration without a timestamp may be a copy of an older one: its hints are not read.
    """
    fields = _decode(_register_decoder, body)
    signed_at = _parse_optional_timestamp(fields.timestamp, now, settings)
    if signed_at is None or isinstance(fields.hints, msgspec.UnsetType):
        return signed_at, None
    return signed_at, parse_hints(fields.hints, settings.max_key)


def parse_activation(signed: SignedBody, now: datetime, settings: Settings) -> datetime | None:
    """The timestamp of an activation, within the clock skew of `now`; None without one. Raises BadRequest."""
    _decode(_object_decoder, signed.body)  # any JSON object, all of whose values are valid
    return _parse_optional_timestamp(_decode(_activate_decoder, signed.body).timestamp, now, settings)


def _parse_optional_timestamp(
    timestamp: msgspec.Raw | msgspec.UnsetType, now: datetime, settings: Settings
) -> datetime | None:
    if isinstance(timestamp, msgspec.UnsetType):
        return None
    return _parse_timestamp(timestamp, now, settings.max_clock_skew, settings.max_clock_skew)


def parse_snapshot(signed: SignedBody, now: datetime, settings: Settings) -> Snapshot:
    """Parses a snapshot. Raises Forbidden or BadRequest."""
    fields = _decode(_snapshot_decoder, signed.body)
    _check_instance_id(signed, fields.instance_id)
    return _build_snapshot(fields, signed, now, settings)


def split_backlog(signed: SignedBody, settings: Settings) -> list[msgspec.Raw]:
    """The unparsed members of a backlog. Raises Forbidden or BadRequest where the body as a whole is refused."""
    fields = _decode(_backlog_decoder, signed.body)
    _check_instance_id(signed, fields.instance_id)
    if len(fields.snapshots) > settings.max_backlog:
        raise BadRequest(
            "too_many_snapshots",
            f"snapshots has {len(fields.snapshots)} members; at most {settings.max_backlog} are allowed.",
        )
    return fields.snapshots


def parse_member(member: msgspec.Raw, signed: SignedBody, now: datetime, settings: Settings) -> Snapshot | Refusal:
    """Parses one member of a backlog: its snapshot, or the refusal of an invalid one."""
    try:
        return _build_snapshot(_decode(_member_decoder, bytes(member)), signed, now, settings)
    except Refusal as refusal:
        return refusal


def parse_action(signed: SignedBody, name: str, now: datetime, settings: Settings) -> datetime:
    """The timestamp of an action, within the clock skew of `now`. Raises Forbidden or BadRequest."""
    fields = _decode(_action_decoder, signed.body)
    _check_instance_id(signed, fields.instance_id)
    if fields.action != name:
        raise BadRequest("bad_field", f"action is not {name!r}, the action of this path.")
    return _parse_timestamp(fields.timestamp, now, settings.max_clock_skew, settings.max_clock_skew)


def decode_metrics(document: bytes) -> dict[str, object]:
    """A stored metrics object, with exact numbers. Raises BadRequest."""
    return _decode(_metrics_decoder, document)


def parse_new_public_key(body: bytes) -> bytes:
    """Parses the new public key of a rotation. Raises BadRequest."""
    return parse_public_key("new_public_key", _decode(_rotate_decoder, body).new_public_key or "")


def _check_instance_id(signed: SignedBody, instance_id: str) -> None:
    if instance_id != signed.instance_id and instance_id.lower() != signed.instance_id:
        raise Forbidden("instance_mismatch", "instance_id in the body is not the one in X-Instance-ID.")


def _build_snapshot(fields: BacklogSnapshot, signed: SignedBody, now: datetime, settings: Settings) -> Snapshot:
    max_ahead = min(settings.max_clock_skew, MAX_LEAD_TIME)
    snapshot_at = _parse_timestamp(fields.timestamp, now, max_ahead, settings.max_snapshot_age)
    flattened = flatten(fields.metrics, settings)
    version = None if fields.app_version is None else _parse_text("app_version", fields.app_version, settings.max_name)
    return Snapshot(
        instance_id=signed.instance_id,
        public_key=signed.public_key,
        snapshot_at=snapshot_at,
        flattened=flattened,
        app_version=version,
        sequence=fields.sequence,
    )


def _parse_timestamp(timestamp: msgspec.Raw, now: datetime, max_ahead: timedelta, max_age: timedelta) -> datetime:
    try:
        parsed = _parse_rfc3339(bytes(timestamp))
    except (msgspec.DecodeError, OverflowError):
        raise BadRequest(
            "bad_timestamp",
            "timestamp is not an RFC 3339 date and time with an offset, in the years 1 to 9999: 2026-11-23T21:41:55Z.",
        ) from None
    if parsed > now + max_ahead:
        raise BadTimestamp(
            "timestamp_ahead",
            f"timestamp is more than {max_ahead.total_seconds():.0f} s ahead of the server's clock.",
            now,
        )
    if parsed < now - max_age:
        raise BadTimestamp("timestamp_too_old", f"timestamp is older than {_format_duration(max_age)}.", now)
    return parsed


def _parse_rfc3339(timestamp: bytes) -> datetime:
    """Parses a timestamp from its JSON string. Raises DecodeError or OverflowError.

    A second 60 is accepted only at the end of a month in UTC, where leap seconds occur. It becomes the following second
    because neither Python nor PostgreSQL represents it.
    """
    try:
        return _timestamp_decoder.decode(timestamp).astimezone(UTC)
    except msgspec.ValidationError:
        text = _string_decoder.decode(timestamp)
        if text[16:19] != ":60":
            raise
    preceding = _timestamp_decoder.decode(msgspec.json.encode(f"{text[:16]}:59{text[19:]}"))
    following = preceding.astimezone(UTC) + timedelta(seconds=1)
    if (following.day, following.hour, following.minute) != (1, 0, 0):
        raise msgspec.ValidationError("not a leap second")
    return following


def _format_duration(duration: timedelta) -> str:
    """In days from one day on, else in seconds."""
    seconds = duration.total_seconds()
    return f"{seconds / 86400:g} days" if seconds >= 86400 else f"{seconds:.0f} s"


def _parse_text(field: str, value: str, max_length: int) -> str:
    check_text(value, field, max_length)
    return value.strip()


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        body.decode()  # msgspec does not validate the UTF-8 of unknown fields
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        code = "number_out_of_range" if INTEGER_OUT_OF_RANGE in str(error) else "bad_field"
        raise BadRequest(code, f"{error}.") from None
    except InvalidOperation:  # from Decimal: the exponent has more than 18 digits
        raise BadRequest("number_out_of_range", "A number is beyond the range of a double.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("bad_json", "The body is not a JSON object in UTF-8.") from None
    except RecursionError:
        raise BadRequest("too_deep", "The JSON is nested too deeply.") from None
