"""Descriptions of metric keys: all information that a client requires to show a metric without a copy of the rules."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from shm.analytics import applications
from shm.core import metric_keys
from shm.core.aggregates import Aggregate
from shm.db.database import Database

MAX_KEYS = 500  # in one response: as many as the KPIs show of one type of value


class MetricKey(msgspec.Struct):
    """The description of a metric key. `format` is the notation of its values:

    `number`: followed by `unit`, if there is one. `percent`: a number out of 100. `bytes`: an amount of data in `unit`
    (B, kB, MB, GB, TB, in steps of a thousand). `duration`: a time in `unit` (ms, s, min, h, d). `boolean`. `text`: a
    string of at most 64 characters. `json`: any other value, which is shown and never aggregated.

    `aggregate` and `unit` are null unless the values are numbers. `aggregate` is also null if applications disagree.
    `description`: a sentence of the vendor, if there is one. `hidden`: clients do not show the metric. `aggregated`:
    the figures include the key; false if the application had SHM_MAX_KEYS keys before, or if no snapshot had the key
    with a number, a boolean or a short string.
    """

    key: str
    label: str
    kind: metric_keys.Kind
    aggregate: Aggregate | None
    unit: str | None
    format: metric_keys.Format
    description: str | None
    hidden: bool
    aggregated: bool


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    value_type: str | None
    overrides: msgspec.Raw
    aggregated: bool


_overrides = msgspec.json.Decoder(list[metric_keys.MetricOverride])


async def read_metric_keys(database: Database, app: str | None, keys: Sequence[str] | None) -> list[MetricKey]:
    """Describes metric keys of one application, by slug or name, or of all.

    Without `keys`, these are the keys that most instances report, and the keys with an override. Raises NotFound.
    """
    slug = None
    if app is not None:
        slug = (await applications.read_config(database, await applications.resolve_slug(database, app))).slug
    rows = await database.fetch(
        _Row, "metric_descriptions.select_keys", app=slug, keys=None if keys is None else list(keys), max_keys=MAX_KEYS
    )
    return [_metric_key(row) for row in rows]


def _metric_key(row: _Row) -> MetricKey:
    overrides = _overrides.decode(row.overrides)
    described = metric_keys.describe(row.key, metric_keys.common_override(overrides))
    is_number = row.value_type == "number"
    formats: dict[str | None, metric_keys.Format] = {
        "number": described.format,
        "boolean": "boolean",
        "strings": "text",
    }
    return MetricKey(
        key=described.key,
        label=described.label,
        kind=described.kind,
        aggregate=metric_keys.common_aggregate(row.key, overrides) if is_number else None,
        unit=described.unit if is_number else None,
        format=formats.get(row.value_type, "json"),
        description=described.description,
        hidden=described.hidden,
        aggregated=row.aggregated,
    )
