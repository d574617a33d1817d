"""The client protocol of the SHM server, in memory: verifies signatures and keeps what it accepts. No network.

The answers are those of the real server, to which recorded requests hold both. Rotation, rate limits, and the proof
that an old request is no copy are left to the real one.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from shm_sdk.signing import library
from shm_sdk.testing.metrics import check_metrics, check_text
from shm_sdk.testing.refusals import Refusal

MAX_BODY_BYTES = 64 * 1024
MAX_BACKLOG_BYTES = 1024 * 1024
MAX_BACKLOG = 100
MAX_NAME_CHARS = 256
MAX_CLOCK_SKEW = timedelta(minutes=5)
MAX_SNAPSHOT_AGE = timedelta(days=30)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
SIGNATURE = re.compile(r"[0-9a-f]{128}")
TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)")
OPTIONAL_TEXTS = ("app_version", "deployment_mode", "environment", "os_arch")

Document = dict[str, object]
MemberT = TypeVar("MemberT")


@dataclass
class StoredSnapshot:
    """A snapshot that the server has accepted."""

    timestamp: datetime
    metrics: Document
    app_version: str
    sequence: int | None


@dataclass
class Install:
    """A registered install."""

    instance_id: str
    public_key: str
    registration: Document
    is_proven: bool = False  # a signature has shown that the sender has the key
    is_active: bool = False
    snapshots: list[StoredSnapshot] = field(default_factory=list)

    def find_newest(self) -> StoredSnapshot | None:
        """The newest snapshot by its time, in whatever order they arrived."""
        return max(self.snapshots, key=lambda one: one.timestamp, default=None)


class Protocol:
    """The installs of one server. `approves` False is a vendor that approves installs by hand."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.approves = True
        self.installs: dict[str, Install] = {}
        self._actions: dict[str, Callable[[Install, Document], tuple[int, Document]]] = {
            "/v1/activate": self._activate,
            "/v1/snapshot": self._store,
            "/v1/snapshots": self._store_backlog,
            "/v1/erase": self._erase,
            "/v1/disclose": self._disclose,
        }

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Document]:
        """The status and the JSON document for a POST. `headers` have names in lower case."""
        try:
            return self._dispatch(path, headers, body)
        except Refusal as refusal:
            problem = {"status": refusal.status, "code": refusal.code, "detail": refusal.code.replace("_", " ")}
            return refusal.status, {**problem, **refusal.members}

    def _dispatch(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Document]:
        if len(body) > (MAX_BACKLOG_BYTES if path == "/v1/snapshots" else MAX_BODY_BYTES):
            raise Refusal(413, "body_too_large")
        if path == "/v1/register":
            return self._register(headers, body)
        if path not in self._actions:
            raise Refusal(404, "no_such_address")
        install = self._authenticate(headers, body)
        document = _parse_object(body)
        if path != "/v1/activate" and _member(document, "instance_id", str).lower() != install.instance_id:
            raise Refusal(403, "instance_mismatch")
        return self._actions[path](install, document)

    def _register(self, headers: Mapping[str, str], body: bytes) -> tuple[int, Document]:
        document = _parse_object(body)
        instance_id = _member(document, "instance_id", str).lower()
        if not UUID.fullmatch(instance_id):
            raise Refusal(400, "bad_instance_id")
        public_key = _member(document, "public_key", str).lower()
        if not PUBLIC_KEY.fullmatch(public_key):
            raise Refusal(400, "bad_public_key")
        name = _member(document, "app_name", str)
        if not name.strip():
            raise Refusal(400, "bad_field")
        check_text(name, MAX_NAME_CHARS)
        if "hints" in document:
            _member(document, "hints", dict)
        for text in OPTIONAL_TEXTS:
            if document.get(text) is not None:
                check_text(_member(document, text, str), MAX_NAME_CHARS)
        is_signed = "x-signature" in headers
        if is_signed:
            _verify(headers, public_key, body)
            if headers["x-instance-id"].lower() != instance_id:
                raise Refusal(403, "instance_mismatch")
            if "timestamp" in document:
                self._check_timestamp(document, MAX_CLOCK_SKEW)
        known = self.installs.get(instance_id)
        if known is not None and known.public_key != public_key:
            if known.is_proven:
                raise Refusal(409, "key_conflict")
            known = None  # the newest unproven registration counts
        install = known or Install(instance_id, public_key, document)
        self.installs[instance_id] = install
        if is_signed:
            install.registration = document
            install.is_proven = True
            install.is_active = self.approves
        return 200 if known else 201, {"status": "ok", "message": "Registered"}

    def _authenticate(self, headers: Mapping[str, str], body: bytes) -> Install:
        instance_id = headers.get("x-instance-id", "").lower()
        if not instance_id:
            raise Refusal(401, "missing_instance_id")
        if not UUID.fullmatch(instance_id):
            raise Refusal(403, "bad_instance_id")
        _parse_signature(headers)
        install = self.installs.get(instance_id)
        if install is None:
            raise Refusal(403, "unknown_instance")
        _verify(headers, install.public_key, body)
        install.is_proven = True
        return install

    def _activate(self, install: Install, document: Document) -> tuple[int, Document]:
        if "timestamp" in document:
            self._check_timestamp(document, MAX_CLOCK_SKEW)
        install.is_active = self.approves
        if install.is_active:
            return 200, {"status": "active", "message": "Instance activated successfully"}
        return 200, {"status": "pending", "message": "The instance waits for approval"}

    def _store(self, install: Install, document: Document) -> tuple[int, Document]:
        snapshot = self._parse_snapshot(document)
        self._admit(install)
        newest = install.find_newest()
        conflict = _conflict(newest, snapshot) if _add(install, snapshot) else {}
        return 202, {"status": "ok", "message": "Snapshot received", **conflict}

    def _store_backlog(self, install: Install, document: Document) -> tuple[int, Document]:
        members = _member(document, "snapshots", list)
        if len(members) > MAX_BACKLOG:
            raise Refusal(400, "too_many_snapshots")
        self._admit(install)
        newest = install.find_newest()
        return 202, {"status": "ok", "snapshots": [self._store_member(install, member, newest) for member in members]}

    def _store_member(self, install: Install, member: object, newest: StoredSnapshot | None) -> Document:
        """The verdict on one snapshot of a backlog. `newest`: the install's before the backlog."""
        try:
            snapshot = self._parse_snapshot(member if isinstance(member, dict) else {})
        except Refusal as refusal:
            return {"status": "refused", "code": refusal.code, "detail": str(refusal)}
        if not _add(install, snapshot):
            return {"status": "repeated"}
        return {"status": "stored", **_conflict(newest, snapshot)}

    def _erase(self, install: Install, document: Document) -> tuple[int, Document]:
        self._check_action(document, "erase")
        del self.installs[install.instance_id]
        times = sorted(snapshot.timestamp for snapshot in install.snapshots)
        return 200, {
            "instance_id": install.instance_id,
            "app_name": install.registration["app_name"],
            "erased_at": _format(self._now()),
            "snapshots": len(times),
            "oldest_snapshot_at": _format(times[0]) if times else None,
            "newest_snapshot_at": _format(times[-1]) if times else None,
        }

    def _disclose(self, install: Install, document: Document) -> tuple[int, Document]:
        self._check_action(document, "disclose")
        snapshots = [
            {"snapshot_at": _format(one.timestamp), "metrics": one.metrics, "sequence": one.sequence}
            for one in sorted(install.snapshots, key=lambda one: one.timestamp)
        ]
        return 200, {"instance": install.registration, "snapshots": snapshots}

    def _admit(self, install: Install) -> None:
        """A signed snapshot activates its install, unless a person has to approve it."""
        install.is_active = install.is_active or self.approves
        if not install.is_active:
            raise Refusal(403, "not_approved")

    def _check_action(self, document: Document, action: str) -> None:
        if _member(document, "action", str) != action:
            raise Refusal(400, "bad_field")
        self._check_timestamp(document, MAX_CLOCK_SKEW)

    def _parse_snapshot(self, document: Document) -> StoredSnapshot:
        metrics = _member(document, "metrics", dict)
        sequence = document.get("sequence")
        if sequence is not None and (not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 0):
            raise Refusal(400, "bad_field")
        version = _member(document, "app_version", str) if document.get("app_version") is not None else ""
        timestamp = self._check_timestamp(document, MAX_SNAPSHOT_AGE)
        check_text(version, MAX_NAME_CHARS)
        check_metrics(metrics)
        return StoredSnapshot(timestamp, metrics, version, sequence)

    def _check_timestamp(self, document: Document, max_age: timedelta) -> datetime:
        if "timestamp" not in document:
            raise Refusal(400, "bad_field")
        timestamp, now = _parse_timestamp(document["timestamp"]), self._now()
        if timestamp > now + MAX_CLOCK_SKEW:
            raise Refusal(400, "timestamp_ahead", server_time=_format(now))
        if timestamp < now - max_age:
            raise Refusal(400, "timestamp_too_old", server_time=_format(now))
        return timestamp


def _add(install: Install, snapshot: StoredSnapshot) -> bool:
    """Stores a snapshot unless one of the same time is stored. Returns whether it is new."""
    if any(stored.timestamp == snapshot.timestamp for stored in install.snapshots):
        return False
    install.snapshots.append(snapshot)
    return True


def _conflict(newest: StoredSnapshot | None, snapshot: StoredSnapshot) -> Document:
    """The members that say that another process has used the sequence number, of a snapshot newer than the newest."""
    if newest is None or newest.sequence is None or snapshot.sequence is None:
        return {}
    if snapshot.timestamp <= newest.timestamp or snapshot.sequence > newest.sequence:
        return {}
    return {"sequence_conflict": True, "last_sequence": newest.sequence}


def _parse_object(body: bytes) -> Document:
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise Refusal(400, "bad_json") from None
    if not isinstance(document, dict):
        raise Refusal(400, "bad_field")
    return document


def _member(document: Document, name: str, kind: type[MemberT]) -> MemberT:
    value = document.get(name)
    if not isinstance(value, kind):
        raise Refusal(400, "bad_field")
    return value


def _parse_signature(headers: Mapping[str, str]) -> bytes:
    digits = headers.get("x-signature", "")
    if not digits:
        raise Refusal(401, "missing_signature")
    if not SIGNATURE.fullmatch(digits.lower()):
        raise Refusal(403, "bad_signature")
    return bytes.fromhex(digits)


def _verify(headers: Mapping[str, str], public_key: str, body: bytes) -> None:
    if not headers.get("x-instance-id"):
        raise Refusal(401, "missing_instance_id")
    if not library.is_valid(bytes.fromhex(public_key), body, _parse_signature(headers)):
        raise Refusal(403, "bad_signature")


def _parse_timestamp(value: object) -> datetime:
    match = TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Refusal(400, "bad_timestamp")
    seconds, fraction, offset = match.groups()
    micros = f"{fraction or '':0<6}"[:6]
    try:
        return datetime.fromisoformat(f"{seconds}.{micros}{'+00:00' if offset in 'Zz' else offset}")
    except (ValueError, OverflowError):
        raise Refusal(400, "bad_timestamp") from None


def _format(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
