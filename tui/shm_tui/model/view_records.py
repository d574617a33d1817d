"""The data of a view as a table for other programs: names of columns, and rows of values with every digit."""

from collections.abc import Sequence

import msgspec

from shm_client.figures import Breakdown, Day, Group, Lifecycle, MetricSeries, Versions
from shm_client.model import MetricKey, flatten_metrics
from shm_tui.model.place import Place
from shm_tui.model.views.application import ApplicationDocument
from shm_tui.model.views.base import View
from shm_tui.model.views.breakdown import BreakdownDocument
from shm_tui.model.views.fleet import ApplicationDetails, shown_applications
from shm_tui.model.views.instance import InstanceDocument
from shm_tui.model.views.metric import MetricDocument
from shm_tui.model.views.versions import releases_behind
from shm_tui.text.table_formats import METRICS

Records = tuple[list[str], list[list[object]]]

COUNT_NAMES = ("total", "active", "counted", "excluded", "pending", "revoked")
APPLICATION_NAMES = ["slug", "name", *COUNT_NAMES, "stars", "updated_at"]


def view_records(view: View, place: Place) -> Records:
    """The names of the columns, and the rows. A view without data has neither."""
    match view.document():
        case Versions() as versions:
            return _versions(versions)
        case Lifecycle() as lifecycle:
            return _structs(lifecycle.days, list(Day.__struct_fields__))
        case BreakdownDocument(breakdown=breakdown):
            return _breakdown(breakdown)
        case MetricDocument(series=series):
            return _series(series)
        case ApplicationDocument(metrics=metrics):
            return _structs(metrics, list(MetricKey.__struct_fields__))
        case InstanceDocument(instance=instance):
            return ["metric", "value"], [[key, value] for key, value in flatten_metrics(instance.metrics)]
        case [ApplicationDetails(), *_] as details:
            return _applications([each for each in details if isinstance(each, ApplicationDetails)], place)
        case [msgspec.Struct() as first, *_] as entries:
            structs = [each for each in entries if isinstance(each, msgspec.Struct)]
            return _structs(structs, list(first.__struct_fields__))
        case _:
            return [], []


def _structs(entries: Sequence[msgspec.Struct], names: list[str]) -> Records:
    return names, [[getattr(entry, name) for name in names] for entry in entries]


def _applications(details: Sequence[ApplicationDetails], place: Place) -> Records:
    """The applications that the filter of the fleet shows."""
    rows = []
    for application in (each.application for each in shown_applications(details, place)):
        counts = application.instances
        numbers = [getattr(counts, name) for name in COUNT_NAMES]
        rows.append([application.slug, application.name, *numbers, application.stars, application.updated_at])
    return APPLICATION_NAMES, rows


def _versions(versions: Versions) -> Records:
    """A row for each release as of the last time, the newest first."""
    behind = releases_behind(versions)
    adoptions = {each.version: each for each in versions.taken_up}
    rows: list[list[object]] = []
    for name, counts in reversed(versions.versions.items()):
        adoption = adoptions.get(name)
        moves = [adoption.first_at, adoption.moved, adoption.median_days] if adoption else [None] * 3
        rows.append([name, counts[-1] if counts else None, behind.get(name), *moves])
    return ["version", "instances", "releases_behind", "first_at", "moved", "median_days"], rows


def _breakdown(breakdown: Breakdown) -> Records:
    """A row for each value, then one for all others, without a value."""
    names = [breakdown.by, "instances", *([breakdown.metric, "answered"] if breakdown.metric else [])]
    groups: list[Group] = [*breakdown.values, *([breakdown.rest] if breakdown.rest else [])]
    rows: list[list[object]] = [[group.value, group.instances, group.metric, group.answered] for group in groups]
    return names, [row[: len(names)] for row in rows]


def _series(series: MetricSeries) -> Records:
    """A row for each time: the values of each metric, and how many instances it had."""
    names = ["at", *(METRICS + key for key in [*series.metrics, *series.flags])]
    values = [*series.metrics.values(), *(flag.true for flag in series.flags.values())]
    counts = {key: count for key, count in series.instances.items() if key in series.metrics}
    counts |= {key: flag.instances for key, flag in series.flags.items()}
    names += [f"instances.{key}" for key in counts]
    columns = [series.timestamps, *values, *counts.values()]
    return names, [list(row) for row in zip(*columns, strict=True)]
