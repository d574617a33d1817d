"""What installs send: each request a function from what was asked to its answer."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec

from shm.core.errors import Conflict, Forbidden, Refusal, Unauthorized
from shm.ingest import envelope
from shm.ingest.batch_writer import Outcome
from shm.ingest.envelope import Signed
from shm.ingest.registry import Receipt, Registered, unknown_instance
from shm.server.http.ingest_requests import SIGNED, Answer, Post, Request, json
from shm.server.services import Rooms


class Told(msgspec.Struct):
    """It is done."""

    status: Literal["ok"]
    message: str


class Proven(msgspec.Struct):
    """Whether the instance is active, or waits for its approval."""

    status: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["pending", "active"]})]


class Verdict(msgspec.Struct, omit_defaults=True):
    """What became of a member of a backlog; `code` and `detail` say why it was refused."""

    status: Literal["stored", "repeated", "refused"]
    code: str | None = None
    detail: str | None = None


class Verdicts(msgspec.Struct):
    """A verdict for each member of a backlog, in the order in which they were sent."""

    status: Literal["ok"]
    snapshots: list[Verdict]


class Disclosed(msgspec.Struct):
    """Everything held on an instance; its snapshots from the first to the last."""

    instance: dict[str, object]
    snapshots: list[dict[str, object]]


async def register(rooms: Rooms, request: Request) -> Answer:
    """Registers an instance; unsigned, or signed with the key that it carries."""
    said = envelope.registration(request.body, rooms.settings)
    signed = "X-Signature" in request.headers
    if signed:
        claimed = _proof(request)
        if claimed.instance_id != said.instance_id:
            raise Forbidden("instance_mismatch", "instance_id in the body is not the one in X-Instance-ID.")
        envelope.verify(claimed, said.public_key, request.body)
    verdict = await rooms.registry.register(said)
    if verdict is Registered.CONFLICT:
        raise Conflict("key_conflict", "This instance_id is registered with another public key.")
    if verdict is Registered.REVOKED:
        raise unknown_instance()
    if signed:
        await rooms.registry.prove(said.instance_id, said.public_key)
    status = HTTPStatus.CREATED if verdict is Registered.NEW else HTTPStatus.OK
    return Answer(json(Told("ok", "Registered")), status)


async def activate(rooms: Rooms, request: Request) -> Answer:
    """Proves the key of a registered instance, again and again."""
    signed = await _signed(rooms, request)
    envelope.activation(signed)
    return Answer(json(Proven(await rooms.registry.prove(signed.instance_id, signed.public_key))))


async def snapshot(rooms: Rooms, request: Request) -> Answer:
    """Stores a snapshot; 202 once it is committed."""
    signed = await _signed(rooms, request)
    sent = envelope.snapshot(signed, datetime.now(UTC), rooms.settings)
    left = rooms.limits.hold_install(signed.instance_id)
    with _counted(rooms, signed):
        outcome = await rooms.intake.store(sent)
    if outcome is Outcome.STORED:
        left = rooms.limits.take_install(signed.instance_id)
    if left is not None:
        request.told = left.headers()
    return Answer(SNAPSHOT_RECEIVED, HTTPStatus.ACCEPTED)


async def backlog(rooms: Rooms, request: Request) -> Answer:
    """Stores a backlog: a verdict for each once all that can be stored are committed. It counts as one snapshot."""
    signed = await _signed(rooms, request)
    sent = envelope.backlog(signed, datetime.now(UTC), rooms.settings)
    left = rooms.limits.hold_install(signed.instance_id)
    readable = [member for member in sent if not isinstance(member, Refusal)]
    with _counted(rooms, signed):
        outcomes = await rooms.intake.store_all(readable)
    if not readable:  # nothing has asked the database yet who this is
        await rooms.registry.prove(signed.instance_id, signed.public_key)
    if Outcome.STORED in outcomes:
        left = rooms.limits.take_install(signed.instance_id)
    if left is not None:
        request.told = left.headers()
    stored = iter(outcomes)
    verdicts = [_verdict(member if isinstance(member, Refusal) else next(stored)) for member in sent]
    for verdict in verdicts:
        if verdict.code is not None:
            rooms.instruments.refusals.increment(verdict.code)
    return Answer(json(Verdicts("ok", verdicts)), HTTPStatus.ACCEPTED)


async def rotate(rooms: Rooms, request: Request) -> Answer:
    """Another key from now on. Asked again by an install that missed the answer, it is one."""
    claimed = _proof(request)
    by_new = envelope.by_new_key(claimed, request.body, request.headers.get("X-New-Signature"))
    known = await rooms.registry.public_key(claimed.instance_id, newest=True)
    by_known = by_new if known == by_new.public_key else await _signed(rooms, request)
    envelope.action(by_known, "rotate", datetime.now(UTC), rooms.settings)
    await rooms.registry.rotate(claimed.instance_id, by_known.public_key, by_new.public_key)
    return Answer(json(Told("ok", "Rotated")))


async def erase(rooms: Rooms, request: Request) -> Answer:
    """Deletes everything held on the instance, and says what that was."""
    signed = await _signed(rooms, request)
    envelope.action(signed, "erase", datetime.now(UTC), rooms.settings)
    return Answer(json(await rooms.registry.erase(signed.instance_id, signed.public_key)))


async def disclose(rooms: Rooms, request: Request) -> Answer:
    """Tells everything held on the instance."""
    signed = await _signed(rooms, request)
    envelope.action(signed, "disclose", datetime.now(UTC), rooms.settings)
    await rooms.registry.prove(signed.instance_id, signed.public_key)
    return Answer(_disclosed(rooms, signed.instance_id))


SNAPSHOT_RECEIVED = json(Told("ok", "Snapshot received"))

POSTS = {
    "/v1/register": Post(
        *(register, lambda settings: settings.max_body, True, envelope.RegisterBody, Told),
        statuses=(HTTPStatus.OK, HTTPStatus.CREATED),
        proof_wanted=False,
        refuses=(Conflict,),
    ),
    "/v1/activate": Post(activate, lambda settings: settings.max_body, True, None, Proven),
    "/v1/snapshot": Post(
        *(snapshot, lambda settings: settings.max_body, False, envelope.SnapshotBody, Told),
        statuses=(HTTPStatus.ACCEPTED,),
    ),
    "/v1/snapshots": Post(
        *(backlog, lambda settings: settings.max_backlog_body, False, envelope.BacklogBody, Verdicts),
        statuses=(HTTPStatus.ACCEPTED,),
    ),
    "/v1/rotate": Post(
        *(rotate, lambda settings: settings.max_body, True, envelope.RotateBody, Told),
        proof=(*SIGNED, "X-New-Signature"),
    ),
    "/v1/erase": Post(erase, lambda settings: settings.max_body, True, envelope.ActionBody, Receipt),
    "/v1/disclose": Post(disclose, lambda settings: settings.max_body, True, envelope.ActionBody, Disclosed),
}


def _proof(request: Request) -> envelope.Proof:
    """Who says to have signed this."""
    return envelope.proof(request.headers.get("X-Instance-ID"), request.headers.get("X-Signature"))


async def _signed(rooms: Rooms, request: Request) -> Signed:
    """The body, its signature checked: against the key that is remembered, and should another server have changed it,
    against the newest.
    """
    claimed = _proof(request)
    known = await rooms.registry.public_key(claimed.instance_id)
    try:
        return envelope.verify(claimed, known, request.body)
    except Unauthorized:
        newest = await rooms.registry.public_key(claimed.instance_id, newest=True)
        if newest == known:
            raise
        return envelope.verify(claimed, newest, request.body)


@contextmanager
def _counted(rooms: Rooms, signed: Signed) -> Iterator[None]:
    """What waits for approval counts like what is stored: it costs as much."""
    try:
        yield
    except Forbidden as refusal:
        if refusal.code == "not_approved":
            rooms.limits.take_install(signed.instance_id)
        raise


def _verdict(outcome: Outcome | Refusal) -> Verdict:
    if isinstance(outcome, Refusal):
        return Verdict("refused", outcome.code, outcome.detail)
    return Verdict(outcome.value)


async def _disclosed(rooms: Rooms, instance_id: str) -> AsyncIterator[bytes]:
    """A JSON object in pieces: what is known of the instance, and its snapshots from the first to the last."""
    held = await rooms.registry.held(instance_id)
    yield b'{"instance":' + json(held) + b',"snapshots":['
    comma = b""
    async for page in rooms.registry.snapshots_held(instance_id):
        yield comma + json(page)[1:-1]
        comma = b","
    yield b"]}"
