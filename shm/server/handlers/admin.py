"""The admin API's reads and changes of instances and applications: `/api/v1/admin/`.

The shapes of responses are in `shm.analytics`.
"""

from datetime import date
from http import HTTPStatus
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from shm.analytics import applications, instance_fields, instances, kpis, stats
from shm.analytics.instances import InstanceConditions, InstanceFilter, InstancePage, StoredSnapshot
from shm.analytics.periods import past_midnight
from shm.analytics.sorting import By, Order, Sorting
from shm.auth import audit
from shm.auth.tokens import Role
from shm.core.errors import BadGateway, BadRequest, Conflict, NotFound
from shm.core.json_types import Text
from shm.ingest.bulk_changes import BulkChange, Selection
from shm.server.handlers.base import Handler
from shm.server.http.operations import FEED_CURSOR, NEXT_PAGE, ROWS_BEFORE, InstanceId, Slug, operation
from shm.server.http.params import LENIENT

MAX_ROWS = 1_000  # of a page: about half a megabyte of JSON; `instances.PAGE_BYTES` limits it too
DEFAULT_ROWS = 50  # as in the original
DEFAULT_APPLICATIONS = 100  # as in the original, which has no further pages
MAX_OFFSET = 100_000  # rows: PostgreSQL reads and discards them, so old scripts for large fleets have to use `after`
MIN_DIGITS_TO_CHANGE = 8  # of a shortened ID in a request that changes an instance; the console shows as many

Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS, description="The maximum number of items.")]
After = Annotated[Text, msgspec.Meta(description="A page token from the `Link` header; the page after it is returned.")]


class PageQuery(msgspec.Struct, frozen=True):
    """The query of a list."""

    limit: Limit = DEFAULT_ROWS
    after: After | None = None


class InstancesQuery(InstanceFilter, frozen=True):
    """The query of `GET instances`."""

    app: (
        Annotated[
            str,
            msgspec.Meta(
                min_length=1,
                description="An application's slug or name; empty: all, as in the original.",
                extra=LENIENT,
            ),
        ]
        | None
    ) = None
    sort: By = "last_seen_at"
    order: Order | None = None
    limit: Annotated[
        int,
        msgspec.Meta(ge=1, le=MAX_ROWS, description="The maximum number of items.", extra=LENIENT),
    ] = DEFAULT_ROWS
    offset: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            description=f"Rows to skip, at most {MAX_OFFSET}, as in the original. `after` costs less.",
            extra=LENIENT,
        ),
    ] = 0
    after: After | None = None
    before: (
        Annotated[
            Text,
            msgspec.Meta(
                description="A page token from the `Link` header; the page before it is returned. `end`: the last."
            ),
        ]
        | None
    ) = None
    around: (
        Annotated[UUID, msgspec.Meta(description="The ID of an instance; the page around its place is returned.")]
        | None
    ) = None


class ApplicationsQuery(PageQuery, frozen=True):
    """The query of `GET applications`."""

    limit: Limit = DEFAULT_APPLICATIONS


class PreviewQuery(msgspec.Struct, frozen=True):
    """The query of a change of many instances."""

    dry_run: Annotated[bool, msgspec.Meta(description="Only counts the instances, and changes nothing.")] = False


class KpisQuery(InstanceConditions, frozen=True):
    """The query of `GET applications/{slug}/kpis`."""

    counted: Annotated[bool, msgspec.Meta(description="Only over the counted instances.")] = False
    at: (
        Annotated[date, msgspec.Meta(description="A day: as of its beginning, at midnight in UTC, without a filter.")]
        | None
    ) = None


class Stats(Handler):
    """`GET stats`."""

    @operation("getStats", Role.VIEWER)
    async def get(self) -> stats.Stats:
        """Counts and aggregates over all applications."""
        return await stats.read_stats(self.services.database, self.services.settings)


class Applications(Handler):
    """`applications`."""

    @operation("listApplications", Role.VIEWER, headers=[NEXT_PAGE])
    async def get(self, query: ApplicationsQuery) -> list[applications.Application]:
        """Applications with their counts, by slug."""
        rows = await self.services.applications.list_page(query.after, query.limit + 1)
        if len(rows) > query.limit:
            self.set_next_link(rows[query.limit - 1].slug)
        return rows[: query.limit]


class Application(Handler):
    """`GET applications/{slug}`."""

    @operation("getApplication", Role.VIEWER, refuses=[NotFound])
    async def get(self, slug: Slug) -> applications.ApplicationDetail:
        """An application with its counts and the vendor's data on it."""
        return await self.services.applications.get(await self.services.applications.resolve_alias(slug))

    @operation("updateApplication", Role.ADMIN, refuses=[NotFound, Conflict])
    async def put(self, slug: Slug, body: applications.ApplicationChange) -> applications.ChangedApplication:
        """Changes the vendor's data on an application. Omitted fields are not changed."""
        slug = await self.services.applications.resolve_alias(slug)
        await self.services.applications.check_exists(slug)
        changes = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
        await self.record_change("update_application", slug, **changes)
        await self.services.applications.update(slug, body)
        return applications.ChangedApplication.of(await self.services.applications.get(slug), "Application updated")

    @operation("deleteApplication", Role.ADMIN, status=HTTPStatus.ACCEPTED, refuses=[NotFound, Conflict])
    async def delete(self, slug: Slug, query: PreviewQuery) -> BulkChange:
        """Deletes an application and all its instances for good, in the background.

        `GET bulk-changes` shows its progress. Instances that register in the meantime remain, with the application.
        """
        await self.services.applications.check_exists(slug)
        selection = Selection(slug=slug)
        if query.dry_run:
            return await self.services.bulk_changes.preview("delete", selection)
        await self.record_change("delete_application", slug)
        return await self.services.bulk_changes.request("delete", selection, removes_application=True)


class RefreshStars(Handler):
    """`POST applications/{slug}/refresh-stars`."""

    @operation("updateStars", Role.ADMIN, refuses=[NotFound, Conflict, BadGateway])
    async def post(self, slug: Slug) -> applications.ChangedApplication:
        """Reads the stars of the application's repository from GitHub."""
        slug = await self.services.applications.resolve_alias(slug)
        application = await self.services.applications.get(slug)
        url = application.github_url
        stars = await self.services.github_stars.fetch(url if isinstance(url, str) else None)
        await self.record_change("refresh_stars", slug, stars=stars)
        if not isinstance(url, str) or not await self.services.applications.set_stars(slug, url, stars):
            raise Conflict("repository_changed", "github_url of this application has changed meanwhile; try again.")
        return applications.ChangedApplication.of(await self.services.applications.get(slug), "Stars refreshed")


class ApplicationKpis(Handler):
    """`GET applications/{slug}/kpis`."""

    @operation("getKpis", Role.VIEWER, headers=[FEED_CURSOR], refuses=[NotFound])
    async def get(self, slug: Slug, query: KpisQuery) -> kpis.ApplicationKpis:
        """Every metric of an application, over its unrevoked instances, or those of them that a filter selects.

        Each instance counts with its current snapshot, if that is newer than the active window. `at` shows a day in the
        past: sums, means and flags, and other aggregates while the raw snapshots are stored.
        """
        cursor, application_kpis = await self.services.applications.read_by_slug(
            slug, lambda found: self._read(found, query)
        )
        self.set_feed_cursor(cursor)
        return application_kpis

    async def _read(self, slug: str, query: KpisQuery) -> tuple[int, kpis.ApplicationKpis]:
        services = self.services
        if query.at is not None:
            if query.counted or not query.selects_all:
                raise BadRequest(
                    "bad_parameter", "at is not possible with counted or a filter: the past has totals only."
                )
            return await services.past_kpis.read(slug, past_midnight(query.at, services.database.clock.now()))
        if query.selects_all:
            return await services.kpis.read_application(slug, counted_only=query.counted)
        return await services.filtered_kpis.read(slug, query, counted_only=query.counted)


class Instances(Handler):
    """`instances`."""

    @operation("listInstances", Role.VIEWER, headers=[FEED_CURSOR, NEXT_PAGE, ROWS_BEFORE], refuses=[NotFound])
    async def get(self, query: InstancesQuery) -> list[instance_fields.Instance]:
        """Instances with their current metrics, last seen first, or sorted by a field or a metric.

        In both orders numbers come before booleans, booleans before texts, and missing values last. Equal values are
        sorted by the instance's ID. Texts, including versions, are sorted by code points. A page may have fewer items
        than `limit`: the last page is the one without a `Link` header. `before` and `around` read the list from its end
        and from the place of an instance.
        """
        places = [place for place in (query.after, query.before, query.around) if place is not None]
        if query.offset > MAX_OFFSET or (query.offset and places):
            raise BadRequest(
                "bad_parameter", f"offset is at most {MAX_OFFSET}, and 0 with after: follow the Link header instead."
            )
        if len(places) > 1:
            raise BadRequest("bad_parameter", "Only one of after, before and around is possible.")
        page = await self._read_page(query, Sorting.parse(query.sort, query.order))
        self.set_feed_cursor(page.cursor)
        self.set_links(page.next, page.previous)
        if page.rows_before is not None:
            self.set_declared_header(ROWS_BEFORE, page.rows_before)
        return page.items

    async def _read_page(self, query: InstancesQuery, sorting: Sorting) -> InstancePage:
        pages = self.services.instance_pages
        if query.before is not None:
            return await pages.read_before(query, sorting, query.before, query.limit)
        if query.around is None:
            return await pages.read_after(query, sorting, query.after, query.limit, query.offset)
        page = await pages.read_around(query, sorting, str(query.around), query.limit)
        if page is None:
            raise instance_not_found()
        return page


class InstanceCount(Handler):
    """`instances/count`."""

    @operation("getInstanceCount", Role.VIEWER)
    async def get(self, query: InstanceFilter) -> instances.InstanceCount:
        """The exact number of instances that a filter selects, with the filters of `GET instances`."""
        return await self.services.instances.count(query)


class Instance(Handler):
    """`GET instances/{id}`."""

    @operation("getInstance", Role.VIEWER, headers=[FEED_CURSOR], refuses=[NotFound, Conflict])
    async def get(self, instance_id: InstanceId) -> instance_fields.Instance:
        """An instance with its current metrics."""
        return await read_instance(self, await find_instance(self, instance_id))

    @operation("deleteInstance", Role.ADMIN, status=HTTPStatus.NO_CONTENT, refuses=[NotFound, Conflict])
    async def delete(self, instance_id: InstanceId) -> None:
        """Deletes an instance and all its data for good. The feed sends the removal.

        Later reports of the instance are refused. If it registers again, it is a new instance; to exclude it for good,
        revoke it instead.
        """
        instance_id = await find_instance(self, instance_id, min_digits=MIN_DIGITS_TO_CHANGE)
        await self.record_change("delete_instance", instance_id[: audit.SHORT_ID_DIGITS])
        if not await self.services.eraser.delete(instance_id):
            raise instance_not_found()


class InstanceSnapshots(Handler):
    """`GET instances/{id}/snapshots`."""

    @operation("listSnapshots", Role.VIEWER, headers=[NEXT_PAGE], refuses=[NotFound, Conflict])
    async def get(self, instance_id: InstanceId, query: PageQuery) -> list[StoredSnapshot]:
        """An instance's snapshots within the retention period, newest first.

        A page may have fewer items than `limit`: the last page is the one without a `Link` header.
        """
        instance_id = await find_instance(self, instance_id)
        rows = await self.services.instances.list_snapshots(instance_id, query.after, query.limit)
        if rows is None:
            raise instance_not_found()
        if rows.next is not None:
            self.set_next_link(rows.next)
        return rows.snapshots


class ApproveInstance(Handler):
    """`POST instances/{id}/approve`."""

    @operation("approveInstance", Role.ADMIN, headers=[FEED_CURSOR], refuses=[NotFound, Conflict])
    async def post(self, instance_id: InstanceId) -> instance_fields.Instance:
        """Approves an instance. A second request changes nothing; a revoked instance stays revoked."""
        return await set_status(self, instance_id, "active")


class RevokeInstance(Handler):
    """`POST instances/{id}/revoke`."""

    @operation("revokeInstance", Role.ADMIN, headers=[FEED_CURSOR], refuses=[NotFound, Conflict])
    async def post(self, instance_id: InstanceId) -> instance_fields.Instance:
        """Revokes an instance for good. A second request changes nothing."""
        return await set_status(self, instance_id, "revoked")


async def set_status(
    handler: Handler, instance_id: str, status: Literal["active", "revoked"]
) -> instance_fields.Instance:
    """Sets an instance's status and returns the instance. Raises NotFound, or Conflict for a revoked one."""
    instance_id = await find_instance(handler, instance_id, min_digits=MIN_DIGITS_TO_CHANGE)
    action = "approve_instance" if status == "active" else "revoke_instance"
    await handler.record_change(action, instance_id[: audit.SHORT_ID_DIGITS])
    await handler.services.registry.set_status(instance_id, status)
    instance = await read_instance(handler, instance_id)
    if instance.status != status:
        raise Conflict("revoked_for_good", "This instance is revoked, which is final.")
    return instance


async def find_instance(handler: Handler, text: str, *, min_digits: int = 1) -> str:
    """The full ID of the instance whose ID begins with this text.

    Raises NotFound for none, Conflict for several and for fewer hex digits than `min_digits`.
    """
    digits = text.replace("-", "")
    if len(digits) < min_digits:
        raise Conflict("short_instance_id", f"At least {min_digits} digits of the ID are required to change something.")
    found = await handler.services.instances.find(digits)
    if not found.instances:
        raise instance_not_found()
    if found.instances > 1:
        many = f"more than {instances.MAX_MATCHES}" if found.instances > instances.MAX_MATCHES else str(found.instances)
        raise Conflict("ambiguous_instance_id", f"The IDs of {many} instances begin with this; send more digits.")
    return found.instance_id


async def read_instance(handler: Handler, instance_id: str) -> instance_fields.Instance:
    """Reads an instance and sets the header with the feed's cursor of that state. Raises NotFound."""
    page = await handler.services.instances.get(instance_id)
    if not page.items:
        raise instance_not_found()
    handler.set_feed_cursor(page.cursor)
    return page.items[0]


def instance_not_found() -> NotFound:
    """The refusal for an unknown instance ID."""
    return NotFound("no_such_instance", "No instance has this ID.")
