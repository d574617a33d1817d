"""What an install sends: headers and bytes in, a value or a refusal out.

Pure: no socket, no database, and no clock but the `now` that is handed in. First `proof` and `verify`: who says so, and
does the signature hold? Only then is a body read. Everything that PostgreSQL could not store (NUL, lone surrogates,
numbers beyond reason) is refused here and in `leaves`, so that a batch does not fall with one bad member.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeVar

import msgspec
import nacl.bindings
import nacl.exceptions

from shm.core import slugs
from shm.core.errors import BadRequest, Forbidden, Refusal, Unauthorized
from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.ingest import flattening as leaves

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
SIGNATURE = re.compile(r"[0-9a-f]{128}")

OUT_OF_RANGE = "value out of range"  # what msgspec says of an integer with more digits than Python reads: 4,300


T = TypeVar("T")


# What only the OpenAPI document is told: each is checked further down, where its refusal has a code of its own.
_Id = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]
_Key = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^[0-9a-fA-F]{64}$"})]
_Name = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": r"\S"})]
_Time = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "string", "format": "date-time"})]
_Member = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/Reading"})]


class RegisterBody(msgspec.Struct):
    """The body of `POST /v1/register`, as the official clients send it."""

    instance_id: _Id
    public_key: _Key
    app_name: _Name
    app_version: str | None = None
    deployment_mode: str | None = None
    environment: str | None = None
    os_arch: str | None = None


class Reading(msgspec.Struct):
    """A snapshot within a backlog."""

    timestamp: _Time
    metrics: dict[str, object]
    app_version: str | None = None
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


class SnapshotBody(Reading, kw_only=True):
    """The body of `POST /v1/snapshot`."""

    instance_id: _Id


class BacklogBody(msgspec.Struct):
    """The body of `POST /v1/snapshots`; each member is read by itself."""

    instance_id: _Id
    snapshots: list[_Member]


class ActionBody(msgspec.Struct):
    """The body of `POST /v1/erase` and `/v1/disclose`; `action` is the last part of the address."""

    action: str
    instance_id: _Id
    timestamp: _Time


class RotateBody(ActionBody):
    """The body of `POST /v1/rotate`. Without the new key it is refused as with one that is none."""

    new_public_key: _Key | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Registration:
    """What an install says of itself."""

    instance_id: str
    public_key: bytes
    app_slug: str
    app_name: str
    app_version: str
    environment: str
    deployment_mode: str
    os_arch: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The headers of a signed request."""

    instance_id: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """A body whose signature held against `public_key`. Made by `verify` alone, wanted by whoever reads a body."""

    instance_id: str
    public_key: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A verified snapshot. `metrics` and `leaves` are JSON, and `leaves` is None where it would be `metrics` again.

    `public_key` is what the signature held against.
    """

    instance_id: str
    public_key: bytes
    snapshot_at: datetime
    metrics: msgspec.Raw
    leaves: msgspec.Raw | None
    app_version: str | None
    version_rank: str | None
    sequence: int | None


_register = msgspec.json.Decoder(RegisterBody)
_snapshot = msgspec.json.Decoder(SnapshotBody, float_hook=Decimal)
_reading = msgspec.json.Decoder(Reading, float_hook=Decimal)
_backlog = msgspec.json.Decoder(BacklogBody)
_action = msgspec.json.Decoder(ActionBody)
_rotate = msgspec.json.Decoder(RotateBody)
_timestamp: msgspec.json.Decoder[datetime] = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)])
_text = msgspec.json.Decoder(str)
_object = msgspec.json.Decoder(dict[str, object], float_hook=Decimal)


def proof(instance_id: str | None, signature: str | None) -> Proof:
    """Reads `X-Instance-ID` and `X-Signature`. Raises Unauthorized."""
    if not instance_id:
        raise Unauthorized("missing_instance_id", "The header X-Instance-ID is missing.")
    if not UUID.fullmatch(instance_id.lower()):
        raise Unauthorized("bad_instance_id", "The header X-Instance-ID is no UUID.")
    return Proof(instance_id.lower(), _signature("X-Signature", signature))


def verify(claimed: Proof, public_key: bytes, body: bytes) -> Signed:
    """Checks an Ed25519 signature over the exact bytes of a body. Raises Unauthorized."""
    _hold_signature("X-Signature", claimed.signature, public_key, body)
    return Signed(claimed.instance_id, public_key, body)


def registration(body: bytes, limits: Settings) -> Registration:
    """Reads the body of a register. Raises BadRequest."""
    said = _decoded(_register, body)
    instance_id = said.instance_id.lower()
    if not UUID.fullmatch(instance_id):
        raise BadRequest("bad_instance_id", "instance_id is no UUID such as c77af682-9aa4-412e-904a-c307d3a8a9c2.")
    public_key = _public_key("public_key", said.public_key)
    if not said.app_name.strip():
        raise BadRequest("bad_field", "app_name is empty.")
    return Registration(
        instance_id=instance_id,
        public_key=public_key,
        # Before its slug is made, which takes longer the longer it is.
        app_name=_field("app_name", said.app_name, limits.max_name),
        app_slug=slugs.make_slug(said.app_name),
        app_version=_field("app_version", said.app_version or "", limits.max_name),
        environment=_field("environment", said.environment or "", limits.max_name),
        deployment_mode=_field("deployment_mode", said.deployment_mode or "", limits.max_name),
        os_arch=_field("os_arch", said.os_arch or "", limits.max_name),
    )


def activation(signed: Signed) -> None:
    """Reads the body of an activate: any JSON object. Raises BadRequest."""
    _decoded(_object, signed.body)


def snapshot(signed: Signed, now: datetime, limits: Settings) -> Snapshot:
    """Reads a snapshot. Raises Forbidden or BadRequest."""
    said = _decoded(_snapshot, signed.body)
    _hold_to(signed, said.instance_id)
    return _taken(said, signed, now, limits)


def backlog(signed: Signed, now: datetime, limits: Settings) -> list[Snapshot | Refusal]:
    """Reads a backlog: in the order sent, each snapshot or what is wrong with it. Raises as `snapshot`."""
    said = _decoded(_backlog, signed.body)
    _hold_to(signed, said.instance_id)
    if len(said.snapshots) > limits.max_backlog:
        raise BadRequest(
            "too_many_snapshots", f"snapshots has {len(said.snapshots)} members; at most {limits.max_backlog} are read."
        )

    def read(member: msgspec.Raw) -> Snapshot | Refusal:
        try:
            return _taken(_decoded(_reading, bytes(member)), signed, now, limits)
        except Refusal as refusal:
            return refusal

    return [read(member) for member in said.snapshots]


def action(signed: Signed, name: str, now: datetime, limits: Settings) -> ActionBody:
    """Reads an action, whose timestamp must be of just now. Raises Forbidden or BadRequest."""
    said = _decoded(_action, signed.body)
    _hold_to(signed, said.instance_id)
    if said.action != name:
        raise BadRequest("bad_field", f"action is not {name!r}, which this address is for.")
    _instant(said.timestamp, now, limits.max_clock_skew, limits.max_clock_skew)
    return said


def by_new_key(claimed: Proof, body: bytes, new_signature: str | None) -> Signed:
    """A rotate's body, signed by the new key that it names. Raises BadRequest or Unauthorized."""
    key = _public_key("new_public_key", _decoded(_rotate, body).new_public_key or "")
    signature = _signature("X-New-Signature", new_signature)
    _hold_signature("X-New-Signature", signature, key, body)
    return Signed(claimed.instance_id, key, body)


def _public_key(name: str, digits: str) -> bytes:
    """Under a key of small order anybody's signature may hold, and a non-canonical one is another key, spelt anew.

    libsodium verifies nothing with either, so an install that registered one could never prove itself: it is told so.
    """
    if not PUBLIC_KEY.fullmatch(digits.lower()):
        raise BadRequest("bad_public_key", f"{name} is not 64 hex digits, an Ed25519 public key.")
    key = bytes.fromhex(digits)
    if not nacl.bindings.crypto_core_ed25519_is_valid_point(key):
        raise BadRequest("bad_public_key", f"{name} is no Ed25519 public key: no private key belongs to it.")
    return key


def _signature(header: str, value: str | None) -> bytes:
    if not value:
        raise Unauthorized("missing_signature", f"The header {header} is missing.")
    if not SIGNATURE.fullmatch(value.lower()):
        raise Unauthorized("bad_signature", f"The header {header} is not 128 hex digits, an Ed25519 signature.")
    return bytes.fromhex(value)


def _hold_signature(header: str, signature: bytes, public_key: bytes, body: bytes) -> None:
    try:
        nacl.bindings.crypto_sign_open(signature + body, public_key)
    except nacl.exceptions.BadSignatureError:
        raise Unauthorized(
            "bad_signature", f"The signature does not hold: {header} must be made over the exact bytes of the body."
        ) from None


def _hold_to(signed: Signed, instance_id: str) -> None:
    if instance_id != signed.instance_id and instance_id.lower() != signed.instance_id:
        raise Forbidden("instance_mismatch", "instance_id in the body is not the one in X-Instance-ID.")


def _taken(said: Reading, signed: Signed, now: datetime, limits: Settings) -> Snapshot:
    snapshot_at = _instant(said.timestamp, now, limits.max_clock_skew, limits.max_snapshot_age)
    kept, aggregated = leaves.read(said.metrics, limits)
    version = None if said.app_version is None else _field("app_version", said.app_version, limits.max_name)
    return Snapshot(
        instance_id=signed.instance_id,
        public_key=signed.public_key,
        snapshot_at=snapshot_at,
        metrics=kept,
        leaves=aggregated,
        app_version=version,
        version_rank=None if version is None else version_rank(version),
        sequence=said.sequence,
    )


def _instant(timestamp: msgspec.Raw, now: datetime, ahead: timedelta, old: timedelta) -> datetime:
    try:
        instant = _rfc3339(bytes(timestamp))
    except (msgspec.DecodeError, OverflowError):
        raise BadRequest(
            "bad_timestamp",
            "timestamp is no RFC 3339 date and time with an offset, in the years 1 to 9999: 2026-11-23T21:41:55Z.",
        ) from None
    if instant > now + ahead:
        raise BadRequest(
            "timestamp_ahead", f"timestamp is more than {ahead.total_seconds():.0f} s ahead of the server's clock."
        )
    if instant < now - old:
        raise BadRequest("timestamp_too_old", f"timestamp is older than {_told(old)}.")
    return instant


def _rfc3339(timestamp: bytes) -> datetime:
    """Reads a timestamp, a JSON value. Raises DecodeError or OverflowError.

    A leap second is one only at the end of a month in UTC. It is the second after it, for neither Python nor PostgreSQL
    has it.
    """
    try:
        return _timestamp.decode(timestamp).astimezone(UTC)
    except msgspec.ValidationError:
        written = _text.decode(timestamp)
        if written[16:19] != ":60":
            raise
    before = _timestamp.decode(msgspec.json.encode(f"{written[:16]}:59{written[19:]}"))
    after = before.astimezone(UTC) + timedelta(seconds=1)
    if (after.day, after.hour, after.minute) != (1, 0, 0):
        raise msgspec.ValidationError("no leap second")
    return after


def _told(duration: timedelta) -> str:
    """A duration in the unit that suits it."""
    seconds = duration.total_seconds()
    return f"{seconds / 86400:g} days" if seconds >= 86400 else f"{seconds:.0f} s"


def _field(name: str, value: str, longest: int) -> str:
    leaves.check_text(value, name, longest)
    return value.strip()


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        body.decode()  # msgspec does not look into what no field takes
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        code = "number_out_of_range" if OUT_OF_RANGE in str(error) else "bad_field"
        raise BadRequest(code, f"{error}.") from None
    except InvalidOperation:  # an exponent of more than 18 digits
        raise BadRequest("number_out_of_range", "A number is beyond what a double-precision number holds.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("bad_json", "This is no JSON object in UTF-8.") from None
    except RecursionError:
        raise BadRequest("too_deep", "The JSON is nested too deep to be read.") from None
