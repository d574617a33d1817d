"""Compares derived data with its sources, which end in the raw snapshots, and repairs the derived data from them.

The comparisons are in `sql/queries/check.sql`. Each is one statement, so it is correct while servers write. This module
compares the ranks of versions, because Python computes them.
Differences are read in pages and are not kept in memory, so their number is not limited.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from shm.core.releases import version_rank
from shm.db.database import Connection, Database

PAGE_ROWS = 500  # differences at a time; a repair of them holds a lock for some tens of milliseconds
MAX_SHOWN = 20  # examples of each table: a list of a million differences would contain no more information
MAX_ROUNDS = 5  # comparisons of one table, until one finds nothing: a day may have been closed with wrong values

# The order of the repairs: each comparison uses the data that the repairs before it have corrected.
COMPARISONS = ("leaves", "instances", "ranks", "tallies", "series", "versions", "absences")


@dataclass(frozen=True, slots=True)
class Difference:
    """The table (`part`), the place in it, the actual and the expected value. `mend`: the input of the repair."""

    part: str
    place: str
    actual: str
    expected: str
    mend: msgspec.Raw


# The active window has changed, and no server has finished the new computation of the series yet. The series cannot be
# compared until then.
STALE = Difference("series_head", "stale", "true", "false", msgspec.Raw(b"{}"))


@dataclass(slots=True)
class Report:
    """The number of differences in each table, and the first of them."""

    examples: dict[str, list[Difference]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, page: list[Difference]) -> None:
        """Counts all differences of a page and keeps the examples."""
        for difference in page:
            shown = self.examples.setdefault(difference.part, [])
            self.counts[difference.part] = self.counts.get(difference.part, 0) + 1
            if len(shown) < MAX_SHOWN:
                shown.append(difference)

    def merge(self, other: "Report") -> None:
        """Adds the differences of another report."""
        for part, count in other.counts.items():
            self.counts[part] = self.counts.get(part, 0) + count
            self.examples[part] = [*self.examples.get(part, []), *other.examples[part]][:MAX_SHOWN]

    @property
    def count(self) -> int:
        """The number of differences in all tables."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The version of an instance, and its stored rank."""

    instance_id: str
    app_version: str
    version_rank: str

    def difference(self) -> Difference | None:
        """The difference between the stored and the computed rank; None if they are equal."""
        expected = version_rank(self.app_version)
        if self.version_rank == expected:
            return None
        named = {"instance_id": self.instance_id, "app_version": self.app_version, "version_rank": expected}
        return Difference(
            "instances",
            f"{self.instance_id[:8]}, version_rank",
            self.version_rank or "nothing",
            expected or "nothing",
            msgspec.Raw(msgspec.json.encode(named)),
        )


@dataclass(frozen=True, slots=True)
class _Agreed:
    active_window: timedelta
    stale: bool


async def find_differences(database: Database) -> Report:
    """Compares all derived tables and returns the differences."""
    findings = Report()
    async with database.dedicated_connection() as connection:
        agreed = await _agreed(connection)
        for name in COMPARISONS:
            if name == "series" and agreed.stale:
                findings.add([STALE])
                continue
            async for page in _pages(connection, name, agreed.active_window):
                findings.add(page)
    return findings


@asynccontextmanager
async def open_repairer(database: Database) -> AsyncIterator["Repairer | None"]:
    """Yields the only repairer of the database; None if another process repairs it."""
    async with database.dedicated_connection() as connection:
        yield Repairer(connection) if await connection.fetch_value(bool, "check.try_repair_lock") else None


class Repairer:
    """Repairs derived data.

    All repairs use the connection that holds the repair lock, so they end if the lock is lost.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def repair(self) -> tuple[Report, Report]:
        """Repairs all tables. Returns the repaired and the remaining differences."""
        mended, left = Report(), Report()
        for name in COMPARISONS:
            await self._until_nothing_is_left(name, mended, left)
        return mended, left

    async def _until_nothing_is_left(self, name: str, mended: Report, left: Report) -> None:
        found = Report()
        for _ in range(MAX_ROUNDS):
            agreed = await _agreed(self._connection)
            found = Report()
            if name == "series" and agreed.stale:
                found.add([STALE])
                break
            async for page in _pages(self._connection, name, agreed.active_window):
                found.add(page)
                if await self._apply(name, page, agreed.active_window):
                    mended.add(page)
            if found.count == 0:
                return
        left.merge(found)

    async def _apply(self, name: str, page: list[Difference], active_window: timedelta) -> bool:
        """Repairs a page of differences. Returns whether any of them still existed."""
        rows = msgspec.json.encode([difference.mend for difference in page]).decode()
        window = {"active_window": active_window} if name == "series" else {}
        return await self._connection.execute(f"check.repair_{name}", rows=rows, **window) > 0


async def _agreed(connection: Connection) -> _Agreed:
    (agreed,) = await connection.fetch(_Agreed, "check.select_settings")
    return agreed


def _pages(connection: Connection, name: str, active_window: timedelta) -> AsyncIterator[list[Difference]]:
    if name == "ranks":
        return _wrong_ranks(connection)
    window = {"active_window": active_window} if name == "series" else {}
    return connection.fetch_pages(Difference, f"check.find_{name}", PAGE_ROWS, **window)


async def _wrong_ranks(connection: Connection) -> AsyncIterator[list[Difference]]:
    async for page in connection.fetch_pages(_Ranked, "check.select_version_ranks", PAGE_ROWS):
        if found := [difference for each in page if (difference := each.difference()) is not None]:
            yield found
