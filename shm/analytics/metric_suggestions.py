"""Suggestions of an application's developer for its metrics, sent by the installs. An admin accepts each, or not."""

from dataclasses import dataclass

import msgspec

from shm.analytics import applications
from shm.core import metric_keys
from shm.core.metric_keys import MetricOverride
from shm.db.database import Database
from shm.db.statement_runner import Reader

MAX_RECENT = 1_000  # instances, the most recently seen: bounds the read, and new versions are among them
MAX_KEYS = 500  # as many as an application has overrides


class MetricSuggestion(msgspec.Struct):
    """A suggestion for a metric.

    `suggested`: the fields that differ from what is shown now, without those that an override sets. `override`: the
    present override with these fields, as `PUT applications/{slug}` takes it. `instances` suggest exactly this, and
    `others` something else for the key, of the 1,000 most recently seen.
    """

    key: str
    suggested: MetricOverride
    override: MetricOverride
    instances: int
    others: int


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    hint: msgspec.Raw
    instances: int
    others: int


_hints = msgspec.json.Decoder(MetricOverride)


async def read_suggestions(database: Database, slug: str) -> list[MetricSuggestion]:
    """The suggestions of an application that are not in effect, those of most instances first. Raises NotFound."""

    async def read(reader: Reader) -> list[MetricSuggestion]:
        config = await applications.read_config(reader, slug)
        rows = await reader.fetch(
            _Row, "metric_hints.select_common", app=slug, max_recent=MAX_RECENT, max_keys=MAX_KEYS
        )
        suggestions = [_suggest(row, config.override_of(row.key)) for row in rows]
        return [each for each in suggestions if each.suggested != metric_keys.NO_OVERRIDE]

    return await database.read_consistently(read)


def _suggest(row: _Row, override: MetricOverride) -> MetricSuggestion:
    shown = metric_keys.describe(row.key, override)
    fields = {
        name: value
        for name, value in msgspec.structs.asdict(_hints.decode(row.hint)).items()
        if value not in (None, False, getattr(shown, name)) and getattr(override, name) is None
    }
    accepted = msgspec.structs.replace(override, **fields)
    return MetricSuggestion(row.key, MetricOverride(**fields), accepted, row.instances, row.others)
