"""An application's settings: name, URLs, stars, and for each metric label, kind, aggregate, unit, hidden, public.

The row of a setting or a metric has a key by which an admin edits it.
"""

import asyncio
from collections.abc import Callable

import msgspec

from shm_client import ApplicationSettings, Client, MetricKey, MetricOverride, Stats
from shm_client.cancelling import result_of
from shm_tui.model.place import Place
from shm_tui.model.views.base import Frame, Page, PageRow, View, required_app
from shm_tui.text.formatting import UNKNOWN, age, plural, timestamp
from shm_tui.text.lines import Line, TableColumn, facts, make_table

LABEL_WIDTH = 14  # cells of a setting's name
OVERRIDDEN = "*"  # after a value that the vendor has set

COLUMNS = (
    TableColumn("METRIC", max_width=40),
    TableColumn("LABEL", max_width=32),
    TableColumn("KIND", rank=2),
    TableColumn("AGGREGATE", rank=1),
    TableColumn("UNIT", rank=3),
    TableColumn("SHOWN", rank=4),
    TableColumn("BADGES", rank=5),
)


class ApplicationDocument(msgspec.Struct):
    """An application with its settings, and the descriptions of its metrics."""

    application: ApplicationSettings
    metrics: list[MetricKey]


class ApplicationView(View):
    """The settings of one application."""

    def __init__(self) -> None:
        self.settings: ApplicationSettings | None = None
        self.metrics: list[MetricKey] = []
        self._stats = Stats()
        self._is_admin = False

    @property
    def has_data(self) -> bool:
        """Whether the settings have been loaded."""
        return self.settings is not None

    async def load(self, client: Client, place: Place, on_change: Callable[[], None]) -> None:
        """Requests the settings, the metrics, and whether the token may change them."""
        slug = required_app(place)
        self.settings, self.metrics, self._stats, self._is_admin = await result_of(
            asyncio.gather(client.application(slug), client.metric_keys(slug), client.stats(), client.is_admin())
        )

    def document(self) -> object:
        """The settings and the metrics."""
        return None if self.settings is None else ApplicationDocument(self.settings, self.metrics)

    def page(self, frame: Frame) -> Page:
        """A row for each setting and each metric; on an admin's screen also to merge and to delete the application."""
        settings = self.settings
        if settings is None:
            return Page([], [])
        updated = f"updated {age(settings.updated_at, frame.now)} ago" if settings.updated_at else ""
        hint = "⏎ edits the row" if self._is_admin else "an admin's token can edit it"
        summary = [plural(settings.instances.total, "instance"), updated, *([hint] if frame.has_keys else [])]
        title = facts(settings.name, summary, frame.width)
        rows = [_setting_row(name, label, text) for name, label, text in self._settings(settings, frame)]
        table = make_table(COLUMNS, [_cells(metric, settings) for metric in self.metrics], frame.width - 2)
        rows += [PageRow("blank metrics", ()), PageRow("head metrics", ((" ", ""), *table.head))]
        rows += [
            PageRow(f"metric {metric.key}", ((" ", ""), *line))
            for metric, line in zip(self.metrics, table.rows, strict=True)
        ]
        notes = [f"{OVERRIDDEN} set here; all else follows from the key"] if settings.overrides else []
        notes += [f"more columns: {', '.join(head.lower() for head in table.hidden)}"] if table.hidden else []
        notes += [f"no install sends: {', '.join(settings.unknown_keys)}"] if settings.unknown_keys else []
        rows += [PageRow(f"note {number}", ((f" {note}", "name"),)) for number, note in enumerate(notes)]
        if self._is_admin and frame.has_keys:
            rows += [
                PageRow("blank actions", ()),
                PageRow("action merge", ((" Merge into another application…", "warn"),)),
                PageRow("action delete", ((" Delete with all its instances…", "bad"),)),
            ]
        return Page([title], rows)

    def _settings(self, settings: ApplicationSettings, frame: Frame) -> list[tuple[str, str, str]]:
        stars = f"{settings.stars:,}" if settings.github_url else UNKNOWN
        if settings.stars_updated_at is not None:
            stars += f", read {age(settings.stars_updated_at, frame.now)} ago"
        activation = {"tofu": "by the first signed request", "manual": "by an admin"}
        how = activation.get(self._stats.activation, self._stats.activation)
        return [
            ("name", "name", settings.name),
            ("slug", "slug", settings.slug),
            ("github_url", "GitHub URL", settings.github_url or UNKNOWN),
            ("stars", "stars", stars),
            ("logo_url", "logo URL", settings.logo_url or UNKNOWN),
            ("activation", "activation", f"{how}: a setting of the server, SHM_ACTIVATION"),
            ("updated", "updated", timestamp(settings.updated_at) if settings.updated_at else UNKNOWN),
        ]


def _setting_row(name: str, label: str, text: str) -> PageRow:
    return PageRow(f"setting {name}", ((f" {label:<{LABEL_WIDTH}}", "name"), (text, "value")))


def _cells(metric: MetricKey, settings: ApplicationSettings) -> list[Line]:
    override = settings.overrides.get(metric.key, MetricOverride())

    def cell(value: str | None, is_set: bool) -> Line:
        return ((f"{value or UNKNOWN}{OVERRIDDEN if is_set else ''}", "accent" if is_set else "value"),)

    return [
        ((metric.key, "name" if metric.hidden else "value"),),
        cell(metric.label, override.label is not None),
        cell(metric.kind, override.kind is not None),
        cell(metric.aggregate, override.aggregate is not None),
        cell(metric.unit, override.unit is not None),
        cell("hidden" if metric.hidden else "shown", override.hidden),
        (("public" if metric.key in settings.public_metrics else UNKNOWN, "value"),),
    ]
