"""The endpoints of the client protocol: a function from request to response for each."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec

from shm.auth.rate_limits import RateLimitStatus, Reservation
from shm.core.errors import Conflict, Forbidden, Refusal, Unauthorized
from shm.ingest import payloads, signatures
from shm.ingest.batch_writer import Outcome, Receipt
from shm.ingest.enrolment import RegistrationResult
from shm.ingest.erasure import ErasureReceipt
from shm.ingest.registry import unknown_instance
from shm.ingest.signatures import SignedBody
from shm.server.http.ingest_requests import SIGNATURE_HEADERS, Endpoint, Request, Response, encode
from shm.server.services import Services


class StatusMessage(msgspec.Struct):
    """The message of a successful request."""

    status: Literal["ok"]
    message: str


class ActivationStatus(msgspec.Struct):
    """Whether the instance is active or waits for approval. `message` says the same to people."""

    status: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["pending", "active"]})]
    message: str


ACTIVATION_MESSAGES = {
    "active": "Instance activated successfully",  # as in the original
    "pending": "The instance waits for approval",
}


class SnapshotReceipt(msgspec.Struct, omit_defaults=True):
    """The snapshot is stored. The last two members are there if another process reports under the same identity.

    `last_sequence` is the sequence of the newest snapshot before.
    """

    status: Literal["ok"]
    message: str
    sequence_conflict: bool = False
    last_sequence: int | None = None


class MemberResult(msgspec.Struct, omit_defaults=True):
    """The result for a member of a backlog. `code` and `detail` are the reason of a refusal.

    The last two members are those of `SnapshotReceipt`.
    """

    status: Literal["stored", "repeated", "refused"]
    code: str | None = None
    detail: str | None = None
    sequence_conflict: bool = False
    last_sequence: int | None = None


class BacklogResult(msgspec.Struct):
    """The results of a backlog, one for each member, in the order of the request."""

    status: Literal["ok"]
    snapshots: list[MemberResult]


class DataExport(msgspec.Struct):
    """All stored data of an instance. Its snapshots are sorted, oldest first."""

    instance: dict[str, object]
    snapshots: list[dict[str, object]]


async def register(services: Services, request: Request) -> Response:
    """Registers an instance. The request is unsigned, or signed with the key in its body."""
    await request.turn()
    registration = payloads.parse_registration(request.body, services.settings)
    if services.settings.applications and registration.app_slug not in services.settings.applications:
        raise Forbidden("unknown_application", "This server takes no reports of an application of this name.")
    signed, signed_at, hints = "X-Signature" in request.headers, None, None
    if signed:
        headers = _parse_signature_headers(request)
        if headers.instance_id != registration.instance_id:
            raise Forbidden("instance_mismatch", "instance_id in the body is not the one in X-Instance-ID.")
        signatures.verify_body(headers, registration.public_key, request.body)
        now = services.database.clock.now()
        signed_at, hints = payloads.parse_signed_registration(request.body, now, services.settings)
    action = None if signed_at is None else request.body
    limits = services.rate_limiter
    with limits.reserve_new_install(request.address) as reservation:
        verdict = await services.registry.register(
            registration, may_create=reservation.is_granted, signed_at=signed_at, action=action
        )
        reservation.is_used = verdict is RegistrationResult.NEW
    if verdict is RegistrationResult.OVER_LIMIT:
        raise limits.too_many_installs(request.address)
    if verdict is RegistrationResult.CONFLICT:
        raise Conflict("key_conflict", "This instance_id is registered with another public key.")
    if verdict is RegistrationResult.REFUSED:
        raise unknown_instance()
    if signed:
        key = registration.public_key
        await services.registry.confirm_key(registration.instance_id, key, signed_at, action, hints)
    status = HTTPStatus.CREATED if verdict is RegistrationResult.NEW else HTTPStatus.OK
    return Response(encode(StatusMessage("ok", "Registered")), status)


async def activate(services: Services, request: Request) -> Response:
    """Confirms the key of a registered instance.

    A request without a timestamp may be repeated; it is a sign of life only the first time.
    """
    signed = await _verify(services, request)
    signed_at = payloads.parse_activation(signed, services.database.clock.now(), services.settings)
    action = None if signed_at is None else signed.body
    status = await services.registry.confirm_key(signed.instance_id, signed.public_key, signed_at, action)
    return Response(encode(ActivationStatus(status, ACTIVATION_MESSAGES[status])))


async def snapshot(services: Services, request: Request) -> Response:
    """Stores a snapshot. Responds with 202 once it is committed."""
    with services.rate_limiter.reserve_failure(request.address) as reservation:
        try:
            signed = await _verify_within_limits(services, request, reservation)
            sent = payloads.parse_snapshot(signed, services.database.clock.now(), services.settings)
            rate_limit = services.rate_limiter.check_install(signed.instance_id)
            receipt = await services.intake.store(sent)
        except (Unauthorized, Forbidden) as refusal:
            _count_refusal(services, request, refusal, reservation)
            raise
        _take_from_budgets(services, request, signed, rate_limit, [receipt], reservation)
    if receipt.last_sequence is None:
        return Response(SNAPSHOT_RECEIVED, HTTPStatus.ACCEPTED)
    conflict = SnapshotReceipt("ok", "Snapshot received", sequence_conflict=True, last_sequence=receipt.last_sequence)
    return Response(encode(conflict), HTTPStatus.ACCEPTED)


async def backlog(services: Services, request: Request) -> Response:
    """Stores a backlog of snapshots, which counts as one snapshot.

    The response has a result for each member and is sent once all valid members are committed.
    """
    with services.rate_limiter.reserve_failure(request.address) as reservation:
        try:
            signed = await _verify_within_limits(services, request, reservation)
            members = payloads.split_backlog(signed, services.settings)
            rate_limit = services.rate_limiter.check_install(signed.instance_id)
            now, sent = services.database.clock.now(), []
            for member in members:
                await asyncio.sleep(0)  # other requests are served between two members
                await request.turn()
                sent.append(payloads.parse_member(member, signed, now, services.settings))
            valid = [member for member in sent if not isinstance(member, Refusal)]
            receipts = await services.intake.store_all(valid)
            if not valid:  # no statement has checked the instance and its key yet
                await services.registry.confirm_key(signed.instance_id, signed.public_key)
        except (Unauthorized, Forbidden) as refusal:
            _count_refusal(services, request, refusal, reservation)
            raise
        _take_from_budgets(services, request, signed, rate_limit, receipts, reservation)
    stored = iter(receipts)
    results = [_to_member_result(member if isinstance(member, Refusal) else next(stored)) for member in sent]
    for result in results:
        if result.code is not None:
            services.instruments.refusals.increment(result.code)
    return Response(encode(BacklogResult("ok", results)), HTTPStatus.ACCEPTED)


async def rotate(services: Services, request: Request) -> Response:
    """Replaces the instance's key.

    The request may be repeated by an install that did not receive the response.
    """
    headers = _parse_signature_headers(request)
    await request.turn()
    new_key = payloads.parse_new_public_key(request.body)
    by_new_key = signatures.verify_new_key(headers, new_key, request.body, request.headers.get("X-New-Signature"))
    key = await services.registry.public_key(headers.instance_id, refresh=True)
    is_repeated = key == by_new_key.public_key
    by_current_key = by_new_key if is_repeated else await _verify(services, request)
    signed_at = payloads.parse_action(by_current_key, "rotate", services.database.clock.now(), services.settings)
    if is_repeated:  # it changes nothing, and is no sign of life
        await services.registry.confirm_key(headers.instance_id, by_new_key.public_key)
    else:
        await services.registry.rotate(
            headers.instance_id, by_current_key.public_key, by_new_key.public_key, signed_at, request.body
        )
    return Response(encode(StatusMessage("ok", "Rotated")))


async def erase(services: Services, request: Request) -> Response:
    """Deletes all stored data of the instance. The response describes the deleted data."""
    signed = await _verify(services, request)
    signed_at = payloads.parse_action(signed, "erase", services.database.clock.now(), services.settings)
    return Response(encode(await services.eraser.erase(signed.instance_id, signed.public_key, signed_at)))


async def disclose(services: Services, request: Request) -> Response:
    """Exports all stored data of the instance."""
    signed = await _verify(services, request)
    signed_at = payloads.parse_action(signed, "disclose", services.database.clock.now(), services.settings)
    await services.registry.confirm_key(signed.instance_id, signed.public_key, signed_at, signed.body)
    return Response(_export_chunks(services, signed.instance_id))


SNAPSHOT_RECEIVED = encode(SnapshotReceipt("ok", "Snapshot received"))

ENDPOINTS = {
    "/v1/register": Endpoint(
        *(register, "registerInstance", lambda settings: settings.max_body, True),
        *(payloads.RegisterBody, StatusMessage),
        statuses=(HTTPStatus.OK, HTTPStatus.CREATED),
        requires_signature=False,
        refuses=(Conflict,),
    ),
    "/v1/activate": Endpoint(
        *(activate, "activateInstance", lambda settings: settings.max_body, True),
        *(payloads.ActivateBody, ActivationStatus),
    ),
    "/v1/snapshot": Endpoint(
        *(snapshot, "storeSnapshot", lambda settings: settings.max_body, False, payloads.SnapshotBody, SnapshotReceipt),
        statuses=(HTTPStatus.ACCEPTED,),
    ),
    "/v1/snapshots": Endpoint(
        *(
            backlog,
            "storeBacklog",
            lambda settings: settings.max_backlog_body,
            False,
            payloads.BacklogBody,
            BacklogResult,
        ),
        statuses=(HTTPStatus.ACCEPTED,),
    ),
    "/v1/rotate": Endpoint(
        *(rotate, "rotateKey", lambda settings: settings.max_body, True, payloads.RotateBody, StatusMessage),
        signature_headers=(*SIGNATURE_HEADERS, "X-New-Signature"),
    ),
    "/v1/erase": Endpoint(
        *(erase, "eraseInstanceData", lambda settings: settings.max_body, True, payloads.ActionBody, ErasureReceipt)
    ),
    "/v1/disclose": Endpoint(
        *(disclose, "exportInstanceData", lambda settings: settings.max_body, True, payloads.ActionBody, DataExport)
    ),
}


def _parse_signature_headers(request: Request) -> signatures.SignatureHeaders:
    """The instance ID and the signature of a request, before verification."""
    return signatures.parse_signature_headers(request.headers.get("X-Instance-ID"), request.headers.get("X-Signature"))


async def _verify(services: Services, request: Request) -> SignedBody:
    """Verifies the signature of a body.

    The cached key is tried first. If that fails, the key is read from the database, because another server may have
    changed it.
    """
    headers = _parse_signature_headers(request)
    key = await services.registry.public_key(headers.instance_id)
    await request.turn()
    try:
        return signatures.verify_body(headers, key, request.body)
    except Forbidden:
        newest_key = await services.registry.public_key(headers.instance_id, refresh=True)
        if newest_key == key:
            raise
        await request.turn()
        return signatures.verify_body(headers, newest_key, request.body)


async def _verify_within_limits(services: Services, request: Request, reservation: Reservation) -> SignedBody:
    """Verifies the signature of a snapshot or a backlog, then checks the bytes that its address has stored.

    For an address that has sent too many invalid requests only a valid signature is accepted, and no repetition, and
    a few statements a second read the keys for all such requests. So strangers behind an address do not lock out the
    installs behind it. Raises TooManyRequests.
    """
    limits = services.rate_limiter
    if request.address is None or reservation.is_granted:
        signed = await _verify(services, request)
    else:
        signed = await _verify_over_budget(services, request, request.address)
    limits.check_bytes(request.address)
    return signed


async def _verify_over_budget(services: Services, request: Request, address: bytes) -> SignedBody:
    """Verifies the signature of a snapshot or a backlog from an address that has sent too many invalid requests.

    As in `_verify`, the cached key is tried first. Raises TooManyRequests.
    """
    limits, registry = services.rate_limiter, services.registry
    headers = _parse_signature_headers(request)
    if limits.is_known_replay(request.body):
        raise limits.failed_too_often(address)
    cached = registry.cached_public_key(headers.instance_id)
    if cached is not None:
        await request.turn()
        with suppress(Forbidden):
            return signatures.verify_body(headers, cached, request.body)
    key = await registry.deferred_public_key(headers.instance_id, len(request.body), address)
    if key is None:
        raise limits.failed_too_often(address)
    await request.turn()
    return signatures.verify_body(headers, key, request.body)


def _count_refusal(
    services: Services, request: Request, refusal: Unauthorized | Forbidden, reservation: Reservation
) -> None:
    """Counts a refused snapshot or backlog against a rate limit: `reservation` is that of its address.

    One of an unapproved instance costs as much as a stored one and counts against the limit of its instance, whose
    signature was valid. A bad signature, or one of an unknown instance, counts against the limit of its address.
    """
    if refusal.code == "not_approved":
        services.rate_limiter.take_install(_parse_signature_headers(request).instance_id)
    else:
        reservation.is_used = True


def _take_from_budgets(
    services: Services,
    request: Request,
    signed: SignedBody,
    rate_limit: RateLimitStatus | None,
    receipts: Sequence[Receipt | Refusal],
    reservation: Reservation,
) -> None:
    """Takes from the budgets of the install and its address if a snapshot is new, and sets the rate limit's headers.

    `rate_limit` is the budget of the install before.
    """
    if any(isinstance(receipt, Receipt) and receipt.outcome is Outcome.STORED for receipt in receipts):
        rate_limit = services.rate_limiter.take_install(signed.instance_id)
        services.rate_limiter.take_bytes(request.address, len(request.body))
    else:
        services.rate_limiter.record_replay(request.body)
        reservation.is_used = True
    if rate_limit is not None:
        request.response_headers = rate_limit.headers()


def _to_member_result(receipt: Receipt | Refusal) -> MemberResult:
    if isinstance(receipt, Refusal):
        return MemberResult("refused", receipt.code, receipt.detail)
    is_conflict = receipt.last_sequence is not None
    return MemberResult(receipt.outcome.value, sequence_conflict=is_conflict, last_sequence=receipt.last_sequence)


async def _export_chunks(services: Services, instance_id: str) -> AsyncIterator[bytes]:
    """A JSON object in chunks: the instance's data and its snapshots, oldest first."""
    instance_data = await services.registry.export_instance(instance_id)
    yield b'{"instance":' + encode(instance_data) + b',"snapshots":['
    separator = b""
    async for page in services.registry.export_snapshots(instance_id):
        yield separator + encode(page)[1:-1]
        separator = b","
    yield b"]}"
