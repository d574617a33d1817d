"""What an install sends: headers and bytes in, a value or a refusal out.

Pure: no socket, no database, and no clock but the `now` that is handed in. Everything that PostgreSQL could not store
(NUL, lone surrogates, numbers beyond reason) is refused here, so that a batch does not fall with one bad member.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, TypeVar

import msgspec
import nacl.bindings
import nacl.exceptions

from shm import metrics, names
from shm.errors import BadRequest, Forbidden, Unauthorized
from shm.settings import Settings

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
SIGNATURE = re.compile(r"[0-9a-f]{128}")

LONGEST_NAME = 256  # characters of an application's name, a version, an environment: a table shows far fewer
LARGEST_EXPONENT = 324  # what a double can hold, subnormal included; PostgreSQL would write 1e100000 in 100,001 digits
MOST_DIGITS = 330  # a double written out in full

T = TypeVar("T")


class RegisterBody(msgspec.Struct):
    """The body of `POST /v1/register`, as the official clients send it."""

    instance_id: str
    public_key: str
    app_name: str
    app_version: str | None = None
    deployment_mode: str | None = None
    environment: str | None = None
    os_arch: str | None = None


class SnapshotBody(msgspec.Struct):
    """The body of `POST /v1/snapshot`."""

    instance_id: str
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    metrics: msgspec.Raw
    app_version: str | None = None
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


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
class Snapshot:
    """A verified snapshot. `metrics` and `leaves` are JSON; `public_key` is what the signature held against."""

    instance_id: str
    public_key: bytes
    snapshot_at: datetime
    metrics: msgspec.Raw
    leaves: msgspec.Raw
    app_version: str | None
    sequence: int | None


_register = msgspec.json.Decoder(RegisterBody)
_snapshot = msgspec.json.Decoder(SnapshotBody)
_object = msgspec.json.Decoder(dict[str, object], float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")


def proof(instance_id: str | None, signature: str | None) -> Proof:
    """Reads `X-Instance-ID` and `X-Signature`. Raises Unauthorized."""
    if not instance_id:
        raise Unauthorized("missing_instance_id", "The header X-Instance-ID is missing.")
    if not signature:
        raise Unauthorized("missing_signature", "The header X-Signature is missing.")
    if not UUID.fullmatch(instance_id.lower()):
        raise Unauthorized("bad_instance_id", "The header X-Instance-ID is no UUID.")
    if not SIGNATURE.fullmatch(signature.lower()):
        raise Unauthorized("bad_signature", "The header X-Signature is not 128 hex digits, an Ed25519 signature.")
    return Proof(instance_id.lower(), bytes.fromhex(signature))


def verify(public_key: bytes, signature: bytes, body: bytes) -> None:
    """Checks an Ed25519 signature over the exact bytes of a body. Raises Unauthorized."""
    try:
        nacl.bindings.crypto_sign_open(signature + body, public_key)
    except nacl.exceptions.BadSignatureError:
        raise Unauthorized(
            "bad_signature", "The signature does not hold: X-Signature must be made over the exact bytes of the body."
        ) from None


def registration(body: bytes) -> Registration:
    """Reads the body of a register. Raises BadRequest."""
    said = _decoded(_register, body)
    instance_id = said.instance_id.lower()
    if not UUID.fullmatch(instance_id):
        raise BadRequest("bad_instance_id", "instance_id is no UUID such as c77af682-9aa4-412e-904a-c307d3a8a9c2.")
    if not PUBLIC_KEY.fullmatch(said.public_key.lower()):
        raise BadRequest("bad_public_key", "public_key is not 64 hex digits, an Ed25519 public key.")
    if not said.app_name.strip():
        raise BadRequest("bad_field", "app_name is empty.")
    return Registration(
        instance_id=instance_id,
        public_key=bytes.fromhex(said.public_key),
        app_slug=names.slug(said.app_name),
        app_name=_field("app_name", said.app_name),
        app_version=_field("app_version", said.app_version or ""),
        environment=_field("environment", said.environment or ""),
        deployment_mode=_field("deployment_mode", said.deployment_mode or ""),
        os_arch=_field("os_arch", said.os_arch or ""),
    )


def action(body: bytes) -> None:
    """Reads the body of an activate: any JSON object. Raises BadRequest."""
    _decoded(_object, body)


def snapshot(claimed: Proof, public_key: bytes, body: bytes, now: datetime, limits: Settings) -> Snapshot:
    """Verifies and reads a snapshot. Raises Unauthorized, Forbidden or BadRequest."""
    verify(public_key, claimed.signature, body)
    said = _decoded(_snapshot, body)
    if said.instance_id.lower() != claimed.instance_id:
        raise Forbidden("instance_mismatch", "instance_id in the body is not the one in X-Instance-ID.")
    snapshot_at = _instant(said.timestamp, now, limits)
    kept, leaves = _metrics(said.metrics, limits)
    return Snapshot(
        instance_id=claimed.instance_id,
        public_key=public_key,
        snapshot_at=snapshot_at,
        metrics=kept,
        leaves=leaves,
        app_version=None if said.app_version is None else _field("app_version", said.app_version),
        sequence=said.sequence,
    )


def _instant(timestamp: datetime, now: datetime, limits: Settings) -> datetime:
    try:
        instant = timestamp.astimezone(UTC)
    except OverflowError:
        raise BadRequest("bad_timestamp", "timestamp lies outside of the years 1 to 9999.") from None
    if instant > now + limits.max_clock_skew:
        skew_s = limits.max_clock_skew.total_seconds()
        raise BadRequest("timestamp_ahead", f"timestamp is more than {skew_s:.0f} s ahead of the server's clock.")
    if instant < now - limits.max_snapshot_age:
        days = limits.max_snapshot_age.total_seconds() / 86400
        raise BadRequest("timestamp_too_old", f"timestamp is older than {days:g} days.")
    return instant


def _metrics(text: msgspec.Raw, limits: Settings) -> tuple[msgspec.Raw, msgspec.Raw]:
    """Checks the metrics object against every limit; returns it and its aggregated leaves as JSON.

    What is returned was written from what was checked, so that nothing unchecked (such as the first of two equal keys)
    goes any further.
    """
    try:
        parsed = _decoded(_object, bytes(text))
    except BadRequest as refusal:
        raise BadRequest(refusal.code, f"metrics: {refusal.detail}") from None
    values = _check(parsed, "metrics", 1, limits)
    if values > limits.max_metrics:
        raise BadRequest(
            "too_many_metrics",
            f"metrics holds {values} values, those in arrays too; at most {limits.max_metrics} are read.",
        )
    found = list(metrics.leaves(parsed))
    flat = dict(found)
    if len(flat) < len(found):
        keys = [key for key, _ in found]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadRequest("ambiguous_metric", f"metrics names {_shown(twice)} twice, once with a dot and once nested.")
    for key in flat:
        if len(key) > limits.max_key:
            raise BadRequest("key_too_long", f"metrics.{_shown(key)}: a key has at most {limits.max_key} characters.")
    aggregated = {key: value for key, value in flat.items() if metrics.is_aggregated(value)}
    return msgspec.Raw(_encoder.encode(parsed)), msgspec.Raw(_encoder.encode(aggregated))


def _check(value: object, where: str, depth: int, limits: Settings) -> int:
    """Raises BadRequest for what breaks a limit; returns how many values there are, in arrays too."""
    if isinstance(value, dict):
        if depth > limits.max_depth:
            raise BadRequest("too_deep", f"{where}: objects are read {limits.max_depth} levels deep.")
        for key in value:
            _check_text(key, f"a key in {where}", limits.max_text)
        return sum(_check(inner, f"{where}.{_shown(key)}", depth + 1, limits) for key, inner in value.items())
    if isinstance(value, list):
        if depth > limits.max_depth:
            raise BadRequest("too_deep", f"{where}: arrays are read {limits.max_depth} levels deep.")
        return 1 + sum(_check(inner, where, depth + 1, limits) for inner in value)
    if isinstance(value, str):
        _check_text(value, where, limits.max_text)
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        _check_number(Decimal(value), where)
    return 1


def _check_text(value: str, where: str, longest: int) -> None:
    if len(value) > longest:
        raise BadRequest("text_too_long", f"{where} has {len(value)} characters; at most {longest} are kept.")
    if "\0" in value:
        raise BadRequest("nul_character", f"{where} holds the character U+0000, which cannot be stored.")


def _check_number(value: Decimal, where: str) -> None:
    if len(value.as_tuple().digits) > MOST_DIGITS or abs(value.adjusted()) > LARGEST_EXPONENT:
        raise BadRequest("number_out_of_range", f"{where} is beyond what a double-precision number holds.")


def _field(name: str, value: str) -> str:
    _check_text(value, name, LONGEST_NAME)
    return value.strip()


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest("bad_field", f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("bad_json", "This is no JSON object in UTF-8.") from None
    except RecursionError:
        raise BadRequest("too_deep", "The JSON is nested too deep to be read.") from None


def _shown(key: str) -> str:
    """A key as an answer may show it: short, and on one line."""
    return key[:40].encode("unicode_escape").decode() + ("…" if len(key) > 40 else "")
