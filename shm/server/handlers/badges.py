"""Badges for READMEs: `/badge/{slug}/…`, without a token, as in the original.

An application or a metric that is not public gets a badge that says so, because a page shows no other error.
"""

import re
from decimal import Decimal
from typing import Annotated

import msgspec
import tornado.web

from shm.analytics.public_figures import PublicFigures
from shm.auth.tokens import Role
from shm.core.errors import NotFound
from shm.server import badge_images
from shm.server.badge_images import format_number
from shm.server.handlers.base import Handler
from shm.server.http.operations import Slug, operation
from shm.server.http.params import LENIENT

SLUG = re.compile(r"[a-z0-9-]{1,100}")
SVG = "image/svg+xml"
CACHE_CONTROL = "public, max-age=300"
TOO_FEW, NO_DATA = "too few installs", "no data"
CONTENT_SECURITY_POLICY = "default-src 'none'; sandbox"  # for a badge that is opened as a page
DEFAULT_METRIC = "users_count"  # of a combined badge, as in the original

Key = Annotated[str, msgspec.Meta(description="The key of a metric that the vendor has made public.")]
Color = Annotated[str, msgspec.Meta(description="The value's color, three or six hex digits.", extra=LENIENT)]
Label = Annotated[str, msgspec.Meta(description="The text at the left.", extra=LENIENT)]


class BadgeQuery(msgspec.Struct, frozen=True):
    """The query of a badge."""

    color: Color | None = None
    label: Label | None = None


class CombinedBadgeQuery(BadgeQuery, frozen=True):
    """The query of a combined badge."""

    metric: Annotated[str, msgspec.Meta(description="The key of a public metric.", extra=LENIENT)] = DEFAULT_METRIC


class Badge(Handler):
    """The base of badges."""

    def set_default_headers(self) -> None:
        """Called by Tornado. Badges may be cached."""
        super().set_default_headers()
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)

    def compute_etag(self) -> str | None:
        """A hash of the image, for conditional requests."""
        return tornado.web.RequestHandler.compute_etag(self)

    def _query_arguments(self) -> dict[str, list[str]]:
        """Without unknown parameters: a page may add some, to circumvent a cache."""
        declared = self.operation().query
        names = {field.encode_name for field in msgspec.structs.fields(declared)} if declared is not None else set()
        return {name: values for name, values in super()._query_arguments().items() if name in names}

    async def read_figures(self, slug: str) -> PublicFigures | None:
        """The figures of an application, None if there is none."""
        if not SLUG.fullmatch(slug):
            return None
        try:
            return await self.services.public_figures.read(await self.services.applications.resolve_alias(slug))
        except NotFound:
            return None

    def has_too_few(self, instances: int) -> bool:
        """Whether a figure over so many instances would tell about single ones."""
        return instances < self.services.settings.public_min_instances

    def draw(self, query: BadgeQuery, label: str, value: str, color: str) -> bytes:
        """A badge with the label and the color of the query, or these."""
        self.set_header("Cache-Control", CACHE_CONTROL)
        return badge_images.render(query.label or label, value, badge_images.parse_color(query.color, color))

    def draw_error(self, message: str) -> bytes:
        """A badge that says what is wrong."""
        self.set_header("Cache-Control", CACHE_CONTROL)
        return badge_images.render("error", message, badge_images.RED)


class InstancesBadge(Badge):
    """`GET /badge/{slug}/instances`."""

    @operation("getInstancesBadge", Role.PUBLIC, media_types=[SVG], refuses=[NotFound])
    async def get(self, slug: Slug, query: BadgeQuery) -> bytes:
        """The number of counted instances."""
        figures = await self.read_figures(slug)
        if figures is None:
            return self.draw_error("unknown application")
        if self.has_too_few(figures.instances):
            return self.draw(query, "instances", TOO_FEW, badge_images.GRAY)
        color = badge_images.color_of_instances(figures.instances)
        return self.draw(query, "instances", format_number(Decimal(figures.instances)), color)


class VersionBadge(Badge):
    """`GET /badge/{slug}/version`."""

    @operation("getVersionBadge", Role.PUBLIC, media_types=[SVG], refuses=[NotFound])
    async def get(self, slug: Slug, query: BadgeQuery) -> bytes:
        """The version that most instances have."""
        figures = await self.read_figures(slug)
        if figures is None:
            return self.draw_error("unknown application")
        has_version = figures.version is not None
        if self.has_too_few(min(figures.instances, figures.version_instances) if has_version else figures.instances):
            return self.draw(query, "version", TOO_FEW, badge_images.GRAY)
        return self.draw(query, "version", figures.version or NO_DATA, badge_images.PURPLE)


class MetricBadge(Badge):
    """`GET /badge/{slug}/metric/{key}`."""

    @operation("getMetricBadge", Role.PUBLIC, media_types=[SVG], refuses=[NotFound])
    async def get(self, slug: Slug, key: Key, query: BadgeQuery) -> bytes:
        """A public metric: the KPI of a number, or how many instances report true."""
        figures = await self.read_figures(slug)
        if figures is None:
            return self.draw_error("unknown application")
        metric = figures.metrics.get(key)
        if metric is None:
            return self.draw_error("no public metric")
        if self.has_too_few(metric.instances):
            return self.draw(query, key, TOO_FEW, badge_images.GRAY)
        if metric.value is None:
            return self.draw(query, key, NO_DATA, badge_images.GRAY)
        return self.draw(query, key, format_number(metric.value), badge_images.color_of_metric(metric.value))


class CombinedBadge(Badge):
    """`GET /badge/{slug}/combined`."""

    @operation("getCombinedBadge", Role.PUBLIC, media_types=[SVG], refuses=[NotFound])
    async def get(self, slug: Slug, query: CombinedBadgeQuery) -> bytes:
        """A public metric and the number of counted instances."""
        figures = await self.read_figures(slug)
        if figures is None:
            return self.draw_error("unknown application")
        metric = figures.metrics.get(query.metric)
        if metric is None:
            return self.draw_error("no public metric")
        if self.has_too_few(min(metric.instances, figures.instances)):
            return self.draw(query, "adoption", TOO_FEW, badge_images.GRAY)
        value = NO_DATA if metric.value is None else format_number(metric.value)
        text = f"{value} / {format_number(Decimal(figures.instances))}"
        return self.draw(query, "adoption", text, badge_images.INDIGO)
