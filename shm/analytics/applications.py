"""Applications with their counts, and the vendor's settings: URLs, metric overrides and public metrics.

A path contains the slug of an application. A query, and the path of `GET metrics/{app}`, may contain its name instead:
`resolve_slug` returns the slug of either.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from shm.analytics import counts
from shm.analytics.counts import InstanceCounts, Tally
from shm.core import metric_keys, slugs
from shm.core.errors import BadRequest, Conflict, NotFound
from shm.core.json_types import Timestamp, Url, Uuid
from shm.core.metric_keys import MAX_OVERRIDES, Key, MetricOverride
from shm.db.database import Database
from shm.db.statement_runner import Reader

T = TypeVar("T")

MAX_RECENT = 1_000  # instances, the most recently seen, that are searched for a key whose values are not aggregated
# No space around it, as in a registration.
NAME_PATTERN = r"^[^\s\x00\x1c-\x1f\x85\ufeff]([^\x00]*[^\s\x00\x1c-\x1f\x85\ufeff])?\Z"
MAX_NAME_LENGTH = 256  # characters, as SHM_MAX_NAME by default


class Application(msgspec.Struct, kw_only=True):
    """An application with its counts and the vendor's settings.

    As in the original, `logo_url` is empty without one, and `github_url` and `stars_updated_at` are omitted.
    """

    id: Uuid
    slug: str
    name: str
    created_at: Timestamp
    updated_at: Timestamp
    stars: int
    stars_updated_at: Timestamp | msgspec.UnsetType = msgspec.UNSET
    github_url: str | msgspec.UnsetType = msgspec.UNSET
    logo_url: str
    instances: InstanceCounts
    overrides: dict[str, MetricOverride]
    public_metrics: list[str]


class ApplicationDetail(Application, kw_only=True):
    """An application. `unknown_keys`: keys of `overrides` and `public_metrics` that no install sends.

    An install sends a key if its current snapshot has it. Of keys whose values are not aggregated, such as lists, only
    the 1,000 most recently seen installs are considered.
    """

    unknown_keys: list[str] = []


class ChangedApplication(ApplicationDetail, kw_only=True):
    """An application after a change, with the members of the original's answer."""

    status: Literal["ok"] = "ok"
    message: str

    @classmethod
    def of(cls, application: ApplicationDetail, message: str) -> "ChangedApplication":
        """The application, with a sentence on what has changed."""
        return cls(message=message, **msgspec.structs.asdict(application))


class ApplicationChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT applications/{slug}`: absent fields stay unchanged, an empty URL removes it.

    `overrides` are merged by key: each replaces the present one of its key, `null` removes it, and all other keys keep
    theirs. `public_metrics` is replaced as a whole. `name` is shown instead of the one that installs send; installs
    that send the new name later belong to the application too.
    """

    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH, pattern=NAME_PATTERN)] | None = None
    github_url: Url | None = None
    logo_url: Url | None = None
    overrides: Annotated[dict[Key, MetricOverride | None], msgspec.Meta(max_length=MAX_OVERRIDES)] | None = None
    public_metrics: Annotated[list[Key], msgspec.Meta(max_length=MAX_OVERRIDES)] | None = None


@dataclass(frozen=True, slots=True)
class AppConfig:
    """An application's name, and the vendor's overrides of its metrics."""

    slug: str
    name: str
    created_at: datetime
    overrides: dict[str, MetricOverride]

    def override_of(self, key: str) -> MetricOverride:
        """The override of a key; one without fields if there is none."""
        return self.overrides.get(key, metric_keys.NO_OVERRIDE)


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    slug: str
    name: str
    github_url: str | None
    logo_url: str | None
    stars: int
    stars_updated_at: datetime | None
    created_at: datetime
    updated_at: datetime
    overrides: msgspec.Raw
    public_metrics: list[str]

    def application(self, instances: InstanceCounts) -> Application:
        return Application(
            id=self.id,
            slug=self.slug,
            name=self.name,
            created_at=self.created_at,
            updated_at=self.updated_at,
            stars=self.stars,
            stars_updated_at=self.stars_updated_at or msgspec.UNSET,
            github_url=self.github_url or msgspec.UNSET,
            logo_url=self.logo_url or "",
            instances=instances,
            overrides=_overrides.decode(self.overrides),
            public_metrics=self.public_metrics,
        )


@dataclass(frozen=True, slots=True)
class _HidingApplication:
    slug: str
    keys: list[str]


HiddenKeys = Mapping[str, frozenset[str]]  # by the slug of an application
_overrides = msgspec.json.Decoder(dict[str, metric_keys.MetricOverride])
_encoder = msgspec.json.Encoder()


class ApplicationStore:
    """The applications of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_page(self, after: str | None, limit: int) -> list[Application]:
        """Up to `limit` applications with their counts, in the order of their slugs, after the slug `after`."""

        async def read(reader: Reader) -> tuple[list[_Row], list[Tally]]:
            rows = await reader.fetch(_Row, "applications.select_page", after=after, limit=limit)
            return rows, await counts.read_tallies(reader)

        rows, tallies = await self._database.read_consistently(read)
        counts_by_slug = counts.sum_by_application(tallies)
        return [row.application(counts_by_slug.get(row.slug, InstanceCounts())) for row in rows]

    async def get(self, slug: str) -> ApplicationDetail:
        """The application with this slug. Raises NotFound."""

        async def read(reader: Reader) -> ApplicationDetail:
            row = await _read_row(reader, slug)
            instances = counts.sum_tallies(await counts.read_tallies(reader, slug))
            application = row.application(instances)
            keys = {*application.overrides, *application.public_metrics}
            unknown_keys = await select_unknown_keys(reader, slug, keys)
            return ApplicationDetail(**msgspec.structs.asdict(application), unknown_keys=unknown_keys)

        return await self._database.read_consistently(read)

    async def update(self, slug: str, change: ApplicationChange) -> None:
        """Stores the vendor's settings of an application. Raises NotFound, or BadRequest for too many overrides."""
        overrides = change.overrides or {}
        await self._check_name(slug, change.name)
        changed = await self._database.execute(
            "applications.update",
            slug=slug,
            name=change.name,
            github_url=change.github_url,
            logo_url=change.logo_url,
            overrides=_encoder.encode({key: value for key, value in overrides.items() if value is not None}).decode(),
            removed_overrides=[key for key, value in overrides.items() if value is None],
            max_overrides=MAX_OVERRIDES,
            public_metrics=None if change.public_metrics is None else list(dict.fromkeys(change.public_metrics)),
        )
        if not changed:
            await _read_row(self._database, slug)
            raise BadRequest(
                "too_many_overrides", f"An application has at most {MAX_OVERRIDES} overrides; remove some with null."
            )
        if change.name is not None and slugs.make_slug(change.name) != slug:
            await self._database.execute("applications.add_alias", slug=slugs.make_slug(change.name), app_slug=slug)

    async def resolve_alias(self, slug: str) -> str:
        """The slug itself if an application has it, else the one that it is an alias of: a slug of the original."""
        if await self._database.fetch_one(_Row, "applications.select_by_slug", slug=slug) is not None:
            return slug
        return await self._database.fetch_value(str, "applications.resolve_alias", slug=slug) or slug

    async def read_by_slug(self, slug: str, read: Callable[[str], Awaitable[T]]) -> T:
        """The result of `read` for a slug, or for the one that it is an alias of if no application has it.

        Raises as `read`. A slug of an application costs no statement more.
        """
        try:
            return await read(slug)
        except NotFound:
            target = await self.resolve_alias(slug)
            if target == slug:
                raise
            return await read(target)

    async def set_stars(self, slug: str, github_url: str, stars: int) -> bool:
        """Stores the stars of the application's repository. False if it has another repository by now."""
        return await self._database.execute("applications.set_stars", slug=slug, github_url=github_url, stars=stars) > 0

    async def check_merge(self, slug: str, into_slug: str) -> None:
        """Raises NotFound unless both applications exist, and BadRequest if they are the same."""
        await self.check_exists(slug)
        await self.check_exists(into_slug)
        if slug == into_slug:
            raise BadRequest("bad_field", "into is the application itself.")

    async def check_exists(self, slug: str) -> None:
        """Raises NotFound if no application has the slug."""
        await read_config(self._database, slug)

    async def _check_name(self, slug: str, name: str | None) -> None:
        """Raises Conflict if another application has the name, or if installs with it belong to another one."""
        if name is None or slugs.make_slug(name) == slug:
            return
        slug_of_name = slugs.make_slug(name)
        if await self._database.fetch_one(_Row, "applications.select_by_slug", slug=slug_of_name) is not None:
            raise Conflict("name_taken", "Another application has this name; merge the two instead.")
        owner = await self._database.fetch_value(str, "applications.resolve_alias", slug=slug_of_name)
        if owner not in (None, slug):
            raise Conflict("name_taken", f"Installs with this name belong to another application, {owner}.")


async def read_config(reader: Reader, slug: str) -> AppConfig:
    """The configuration of an application. Raises NotFound."""
    row = await _read_row(reader, slug)
    return AppConfig(row.slug, row.name, row.created_at, _overrides.decode(row.overrides))


async def read_public_metrics(reader: Reader, slug: str) -> frozenset[str]:
    """The keys of metrics that the vendor has made public. Raises NotFound."""
    return frozenset((await _read_row(reader, slug)).public_metrics)


async def resolve_slug(reader: Reader, app: str) -> str:
    """The slug for a slug or a name of an application, in any spelling; the application need not exist.

    The slug of one application takes precedence over the equal name of another. The name or slug of an application that
    was merged and deleted stands for the one that it was merged into.
    """
    slug = await reader.fetch_value(str, "applications.resolve_slug", slug=app, slug_of_name=slugs.make_slug(app))
    assert slug is not None  # noqa: S101 - the statement always returns a row
    return slug


async def select_unknown_keys(reader: Reader, slug: str, keys: Collection[str]) -> list[str]:
    """The keys among `keys` that no install of the application sends, sorted."""
    if not keys:
        return []
    return await reader.fetch_values(
        str, "applications.select_unknown_keys", app=slug, keys=sorted(keys), max_recent=MAX_RECENT
    )


async def select_hidden_keys(reader: Reader) -> HiddenKeys:
    """The keys that the vendor hides, by application."""
    rows = await reader.fetch(_HidingApplication, "applications.select_hidden_keys")
    return {row.slug: frozenset(row.keys) for row in rows}


async def _read_row(reader: Reader, slug: str) -> _Row:
    row = await reader.fetch_one(_Row, "applications.select_by_slug", slug=slug)
    if row is None:
        raise no_such_application()
    return row


def no_such_application() -> NotFound:
    """The refusal for an unknown slug."""
    return NotFound("no_such_application", "No application has this slug.")
