"""Releases of an application over time: instances of each, how fast they adopt a new one, and outdated instances.

Versions that differ in spelling only are one release (`shm.core.releases`), shown in the spelling of most installs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from shm.analytics import applications, periods, series
from shm.analytics.periods import Period
from shm.analytics.series import Sample
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core.json_types import Timestamp
from shm.core.releases import is_pre_release, is_release, version_rank
from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.statement_runner import Reader

MAX_SHOWN = 20  # versions with a series of their own; `other` combines the rest
MAX_VERSIONS = 1_000  # versions that are read
OTHER = "other_versions"  # the series of all instances whose versions are beyond SHM_MAX_VERSIONS


class Adoption(msgspec.Struct):
    """The adoption of a version. `moved`: existing instances that moved to it, half of them within `median_days`.

    `first_at`: when the first install reported it; `installs`: how many ever have.
    """

    version: str
    first_at: Timestamp
    installs: int
    moved: int
    median_days: float | None


class OutdatedVersion(msgspec.Struct):
    """Instances of a release before the latest.

    `releases_behind`: the number of later releases in use, up to the latest one.
    """

    version: str
    instances: int
    releases_behind: int


class Versions(msgspec.Struct):
    """The body of `GET applications/{slug}/versions`. Lists are as long as `timestamps`; null if there is no value.

    `versions`: the instances with a current snapshot by the release in it, in the order of versions. All spellings of a
    release count as one, shown in the spelling that most instances have now. `other`: the instances of all releases
    without a list of their own, also of versions beyond SHM_MAX_VERSIONS. The last value is as of now, or of `at`; the
    bucket that begins at `running_since` is not complete yet. `latest`: the last release in use at that time; a
    pre-release only if nothing else is in use, never a name without a number. `behind`: the versions in use before it.
    `taken_up` is as of `as_of`.
    """

    app: str
    period: Period
    running_since: Timestamp
    timestamps: list[Timestamp]
    versions: dict[str, list[int | None]]
    other: list[int | None]
    total: list[int | None]
    latest: str | None
    on_latest: int
    behind: list[OutdatedVersion]
    as_of: Timestamp
    taken_up: list[Adoption]


@dataclass(frozen=True, slots=True)
class _SpellingCount:
    version: str
    installs: int


class VersionReader:
    """Reads versions of one database's applications."""

    def __init__(self, database: Database, cache: SingleFlightCache, settings: Settings) -> None:
        self._database = database
        self._cache = cache
        self._max_snapshot_age = settings.max_snapshot_age

    async def read_versions(self, slug: str, period: Period, at: datetime | None = None) -> Versions:
        """Reads the versions of an application, or with `at`, a midnight of the past, as of then. Raises NotFound."""
        now = self._database.clock.now()

        async def read(reader: Reader) -> tuple[list[datetime], series.SamplesByKey, list[series.CurrentValue]]:
            config = await applications.read_config(reader, slug)
            points = periods.bucket_ends(period, at or now, config.created_at - self._max_snapshot_age)
            points += [] if at is None else [at]
            past = await series.read_samples(reader, slug, ("version", OTHER), ("",), points)
            return points, past, await series.read_current_versions(reader, slug, MAX_VERSIONS)

        points, past, running = await self._database.read_consistently(read)
        if at is not None:
            return await self._render_past(slug, period, points, past)
        current = {row.value: int(row.instances) for row in running if row.metric_type != OTHER}
        refused = sum(int(row.instances) for row in running if row.metric_type == OTHER) or None
        no_samples: list[Sample | None] = [None] * len(points)
        counts_by_version = {
            version: [*map(_instances, past.get(("version", "", version), no_samples)), current.get(version)]
            for version in {name[2] for name in past if name[0] != OTHER} | current.keys()
        }
        others = [*map(_instances, past.get((OTHER, "", ""), no_samples)), refused]
        as_of, taken_up = await self._cache.get(("versions", slug), lambda: self._read_adoptions(slug))
        return _render(slug, period, [*points, now], counts_by_version, others, current, as_of, taken_up)

    async def _render_past(
        self, slug: str, period: Period, points: list[datetime], past: series.SamplesByKey
    ) -> Versions:
        """The versions as of the last point."""
        counts_by_version = {name[2]: [*map(_instances, past[name])] for name in past if name[0] != OTHER}
        no_samples: list[Sample | None] = [None] * len(points)
        others = [*map(_instances, past.get((OTHER, "", ""), no_samples))]
        then = {version: counts[-1] for version, counts in counts_by_version.items()}
        running = {version: instances for version, instances in then.items() if instances}
        as_of, taken_up = await self._cache.get(("versions", slug), lambda: self._read_adoptions(slug))
        known = [adoption for adoption in taken_up if adoption.first_at <= points[-1]]
        return _render(slug, period, points, counts_by_version, others, running, as_of, known)

    async def _read_adoptions(self, slug: str) -> list[Adoption]:
        installs = {
            row.version: row.installs
            for row in await self._database.fetch(_SpellingCount, "versions.count_spellings", app=slug)
        }
        shown = choose_spellings(installs, installs)
        others = {version: release for version, release in shown.items() if version != release}
        return await self._database.fetch(
            *(Adoption, "versions.measure_adoption"),
            app=slug,
            spellings=[*others],
            releases=[*others.values()],
            limit=MAX_SHOWN,
        )


def _render(
    slug: str,
    period: Period,
    timestamps: list[datetime],
    counts_by_version: Mapping[str, list[int | None]],
    others: list[int | None],
    current: Mapping[str, int],
    as_of: datetime,
    taken_up: Sequence[Adoption],
) -> Versions:
    peaks = {version: max(count or 0 for count in counts) for version, counts in counts_by_version.items()}
    spellings = _group_spellings(choose_spellings(counts_by_version, current, peaks))
    releases = {
        release: _sum_lists([counts_by_version[version] for version in versions], len(timestamps))
        for release, versions in spellings.items()
    }
    running = {
        release: instances
        for release, versions in spellings.items()
        if (instances := sum(current.get(version, 0) for version in versions))
    }
    ranked = sorted(releases, key=lambda release: (-max(count or 0 for count in releases[release]), release))
    latest = latest_release(running)
    by_rank = {version_rank(release): release for release in releases}
    return Versions(
        app=slug,
        period=period,
        running_since=timestamps[-2],
        timestamps=timestamps,
        versions={release: releases[release] for release in sorted(ranked[:MAX_SHOWN], key=version_rank)},
        other=_sum_lists([others, *(releases[release] for release in ranked[MAX_SHOWN:])], len(timestamps)),
        total=_sum_lists([others, *releases.values()], len(timestamps)),
        latest=latest,
        on_latest=running.get(latest, 0) if latest is not None else 0,
        behind=[] if latest is None else outdated_versions(running, latest),
        as_of=as_of,
        taken_up=[
            msgspec.structs.replace(adoption, version=by_rank.get(version_rank(adoption.version), adoption.version))
            for adoption in taken_up
        ],
    )


def choose_spellings(versions: Iterable[str], *frequencies: Mapping[str, int]) -> dict[str, str]:
    """For each version the spelling that its release is shown under: the most frequent one.

    If the first frequency is equal, the next one decides, finally the text.
    """
    releases: dict[str, str] = {}
    by_frequency = sorted(versions, key=lambda version: (*(-counts.get(version, 0) for counts in frequencies), version))
    return {version: releases.setdefault(version_rank(version), version) for version in by_frequency}


def latest_release(versions: Iterable[str]) -> str | None:
    """The last release in the order of versions; a pre-release only if there is no release, never a name."""
    releases = filter(is_release, versions)
    return max(releases, key=lambda version: (not is_pre_release(version), version_rank(version)), default=None)


def outdated_versions(running: Mapping[str, int], latest: str) -> list[OutdatedVersion]:
    """The versions in use before the latest release, in order. Names without a number are not counted as releases."""
    last = version_rank(latest)
    earlier = sorted((version for version in running if version_rank(version) < last), key=version_rank)
    max_behind = sum(map(is_release, earlier)) + 1  # the value for names, because names come first
    return [
        OutdatedVersion(version, running[version], min(max_behind, len(earlier) - index))
        for index, version in enumerate(earlier)
    ]


def _group_spellings(shown: Mapping[str, str]) -> dict[str, list[str]]:
    """The spellings of each release."""
    releases: dict[str, list[str]] = {}
    for version, release in shown.items():
        releases.setdefault(release, []).append(version)
    return releases


def _instances(sample: Sample | None) -> int | None:
    return None if sample is None else sample[1]


def _sum_lists(lists: Sequence[Sequence[int | None]], length: int) -> list[int | None]:
    """Sums by index; None where all are None."""
    return [
        sum(known) if (known := [counts[index] or 0 for counts in lists if counts[index] is not None]) else None
        for index in range(length)
    ]
