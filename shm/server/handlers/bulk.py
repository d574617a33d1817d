"""Changes of many instances by a filter, and merges of applications: `/api/v1/admin/`."""

from http import HTTPStatus
from typing import Annotated, Literal

import msgspec

from shm.analytics.conditions import MAX_CONDITIONS
from shm.analytics.instance_fields import Status
from shm.analytics.instances import InstanceFilter
from shm.auth import audit
from shm.auth.audit import AuditEntry
from shm.auth.tokens import Role
from shm.core.errors import BadRequest, Conflict, NotFound
from shm.core.json_types import Text, Uuid
from shm.ingest.bulk_changes import BulkChange, Selection, encode_page_token
from shm.ingest.erasure import FailedRemoval
from shm.server.handlers.admin import PageQuery
from shm.server.handlers.base import Handler
from shm.server.http.operations import NEXT_PAGE, Slug, operation

FILTER_FIELDS = ("app", "q", "status", "version", "environment", "where")
MAX_IDS = 1_000  # in one request: more than anybody marks by hand; a filter has no limit


class BulkRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST instances/bulk`: the action, and the filter of `GET instances`, of which a part is required.

    An instance is changed if all parts of the filter apply to it.
    """

    action: Literal["approve", "revoke", "delete"]
    app: str | None = None
    q: str | None = None
    status: Status | None = None
    version: str | None = None
    environment: str | None = None
    where: Annotated[
        list[str], msgspec.Meta(max_length=MAX_CONDITIONS, description="Conditions, as of `GET instances`.")
    ] = []
    instance_ids: Annotated[list[Uuid], msgspec.Meta(max_length=MAX_IDS, description="Whole IDs.")] = []
    dry_run: Annotated[bool, msgspec.Meta(description="Only counts the instances, and changes nothing.")] = False


class MergeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST applications/{slug}/merge`. `into`: the slug of the other application."""

    into: Text
    dry_run: Annotated[bool, msgspec.Meta(description="Only counts the instances, and changes nothing.")] = False


class BulkInstances(Handler):
    """`POST instances/bulk`."""

    @operation("createBulkChange", Role.ADMIN, status=HTTPStatus.ACCEPTED, refuses=[Conflict])
    async def post(self, body: BulkRequest) -> BulkChange:
        """Approves, revokes or deletes all instances that match a filter, in the background.

        `GET bulk-changes` shows its progress.
        """
        fields = {name: getattr(body, name) for name in FILTER_FIELDS}
        if not any(fields.values()) and not body.instance_ids:
            raise BadRequest("bad_field", f"A filter is required: one of {[*FILTER_FIELDS, 'instance_ids']}.")
        parameters = await InstanceFilter(**fields).to_parameters(self.services.database)
        selection = Selection(**parameters, where=body.where, instance_ids=body.instance_ids)
        if body.dry_run:
            return await self.services.bulk_changes.preview(body.action, selection)
        await self.services.bulk_changes.check(selection)  # an invalid change has no entry in the audit trail
        chosen = {name: value for name, value in fields.items() if value}
        if body.instance_ids:
            chosen["instance_ids"] = [instance_id[: audit.SHORT_ID_DIGITS] for instance_id in body.instance_ids]
        await self.record_change(f"{body.action}_instances", body.app or "", **chosen)
        return await self.services.bulk_changes.request(body.action, selection)


class BulkChanges(Handler):
    """`GET bulk-changes`."""

    @operation("listBulkChanges", Role.ADMIN, headers=[NEXT_PAGE])
    async def get(self, query: PageQuery) -> list[BulkChange]:
        """Changes of many instances with their progress, newest first. They are kept for a year."""
        changes = await self.services.bulk_changes.list_page(query.after, query.limit + 1)
        if len(changes) > query.limit:
            self.set_next_link(encode_page_token(changes[query.limit - 1]))
        return changes[: query.limit]


class FailedRemovals(Handler):
    """`GET failed-removals`."""

    @operation("listFailedRemovals", Role.ADMIN, headers=[NEXT_PAGE])
    async def get(self, query: PageQuery) -> list[FailedRemoval]:
        """Deletions and revocations of instances that could not be completed and are tried again, with the reason."""
        failures = await self.services.eraser.list_failures(query.after, query.limit + 1)
        if len(failures) > query.limit:
            self.set_next_link(failures[query.limit - 1].instance_id)
        return failures[: query.limit]


class MergeApplication(Handler):
    """`POST applications/{slug}/merge`."""

    @operation("createMerge", Role.ADMIN, status=HTTPStatus.ACCEPTED, refuses=[NotFound, Conflict])
    async def post(self, slug: Slug, body: MergeRequest) -> BulkChange:
        """Moves all instances of an application to another one, with its charts of the past, in the background.

        Installs that register with its name later belong to the other one too. Its settings stay with it; delete it
        once they are not needed.
        """
        await self.services.applications.check_merge(slug, body.into)
        selection = Selection(slug=slug)
        if body.dry_run:
            return await self.services.bulk_changes.preview("move", selection)
        await self.record_change("merge_application", slug, into=body.into)
        return await self.services.bulk_changes.request_merge(selection, slug, body.into)


class Audit(Handler):
    """`GET audit`."""

    @operation("listAuditEntries", Role.ADMIN, headers=[NEXT_PAGE])
    async def get(self, query: PageQuery) -> list[AuditEntry]:
        """The changes by admins within a year, newest first."""
        entries = await self.services.audit.list_page(query.after, query.limit + 1)
        if len(entries) > query.limit:
            self.set_next_link(audit.encode_page_token(entries[query.limit - 1]))
        return entries[: query.limit]
