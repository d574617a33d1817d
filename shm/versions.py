"""Versions of an application over time: how many run which, how fast installs move to a new one, and who is behind."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from shm import applications, periods, series
from shm.database import Database
from shm.periods import Period
from shm.reckoned import Reckoned
from shm.series import Reading
from shm.settings import Settings
from shm.shapes import Moment
from shm.statement_runner import Reader
from shm.version_order import is_pre_release, order

MOST_SHOWN = 20  # versions with a series of their own; the rest is one
MOST_READ = 1_000  # versions that are told apart at all


class Taken(msgspec.Struct):
    """How a version was taken up. `moved`: installs that were there before it and moved to it, half of them within
    `median_days`.

    `first_at`: when the first install reported it; `installs`: how many ever have.
    """

    version: str
    first_at: Moment
    installs: int
    moved: int
    median_days: float | None


class Behind(msgspec.Struct):
    """Installs of a version that is not the latest; so many later ones are there (`releases_behind`)."""

    version: str
    instances: int
    releases_behind: int


class Versions(msgspec.Struct):
    """The body of `GET applications/{slug}/versions`. Lists are as long as `timestamps`; null where nothing was known.

    Instances with a current snapshot, by the version that it tells. The last value is of now, and the bucket from
    `running_since` is still running. `latest`: of the versions that run now, the last in version order, pre-releases
    left out where there are others; `behind`: what runs before it. `taken_up` is as of `as_of`.
    """

    app: str
    period: Period
    running_since: Moment
    timestamps: list[Moment]
    versions: dict[str, list[int | None]]
    other: list[int | None]
    total: list[int | None]
    latest: str | None
    on_latest: int
    behind: list[Behind]
    as_of: Moment
    taken_up: list[Taken]


class VersionCharts:
    """Reads versions of one database's applications."""

    def __init__(self, database: Database, reckoned: Reckoned, settings: Settings) -> None:
        self._database = database
        self._reckoned = reckoned
        self._oldest = settings.max_snapshot_age

    async def of(self, slug: str, period: Period) -> Versions:
        """Of the application of that slug. Raises NotFound."""
        now = datetime.now(UTC)

        async def read(reader: Reader) -> tuple[list[datetime], series.Past, list[series.Now]]:
            config = await applications.config(reader, slug)
            points = periods.ends(period, now, config.created_at - self._oldest)
            past = await series.read(reader, slug, ("version",), ("",), points)
            return points, past, await series.versions_now(reader, slug, MOST_READ)

        points, past, running = await self._database.read_consistently(read)
        current = {row.value: int(row.instances) for row in running}
        nothing: list[Reading | None] = [None] * len(points)
        readings = {
            version: [*map(_instances, past.get(("version", "", version), nothing)), current.get(version)]
            for version in {name[2] for name in past} | current.keys()
        }
        as_of, taken_up = await self._reckoned.get(("versions", slug), lambda: self._taken_up(slug))
        return _told(slug, period, [*points, now], readings, current, as_of, taken_up)

    async def _taken_up(self, slug: str) -> list[Taken]:
        return await self._database.fetch(Taken, "versions.moves", app=slug, most=MOST_SHOWN)


def _told(
    slug: str,
    period: Period,
    timestamps: list[datetime],
    readings: dict[str, list[int | None]],
    current: dict[str, int],
    as_of: datetime,
    taken_up: list[Taken],
) -> Versions:
    ranked = sorted(readings, key=lambda version: (-max(each or 0 for each in readings[version]), version))
    shown = sorted(ranked[:MOST_SHOWN], key=order)
    latest = latest_of(current)
    later = sorted(current, key=order)
    return Versions(
        app=slug,
        period=period,
        running_since=timestamps[-2],
        timestamps=timestamps,
        versions={version: readings[version] for version in shown},
        other=_summed([readings[version] for version in ranked[MOST_SHOWN:]], len(timestamps)),
        total=_summed(list(readings.values()), len(timestamps)),
        latest=latest,
        on_latest=current.get(latest, 0) if latest is not None else 0,
        behind=[
            Behind(version, current[version], later.index(latest) - later.index(version))
            for version in later
            if latest is not None and order(version) < order(latest)
        ],
        as_of=as_of,
        taken_up=taken_up,
    )


def latest_of(versions: Sequence[str] | dict[str, int]) -> str | None:
    """The last in version order; a pre-release only where there is nothing else."""
    return max(versions, key=lambda version: (not is_pre_release(version), order(version)), default=None)


def _instances(reading: Reading | None) -> int | None:
    return None if reading is None else reading[1]


def _summed(lists: Sequence[Sequence[int | None]], length: int) -> list[int | None]:
    """None where all are."""
    return [
        sum(known) if (known := [each[place] or 0 for each in lists if each[place] is not None]) else None
        for place in range(length)
    ]
