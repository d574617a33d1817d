"""What is derived is held against what it is derived from, in the end the raw snapshots, and mended from it.

The comparisons are in `sql/queries/check.sql`, each one statement, so they are true while servers write. Ranks
of versions are compared here, since Python makes them.
Differences come in pages and are not kept, however many there are.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from shm.core.releases import version_rank
from shm.db.database import Connection, Database

PAGE_ROWS = 500  # differences at a time; to mend them takes some tens of milliseconds under a lock
MAX_SHOWN = 20  # of each table: who has a million differences learns nothing more from all of them
MAX_ROUNDS = 5  # a comparison is done again until it finds nothing: a day may have been closed with what was wrong

# In this order they are mended: each is compared with what those before it have mended.
COMPARISONS = ("leaves", "instances", "ranks", "tallies", "series", "versions", "absences")


@dataclass(frozen=True, slots=True)
class Difference:
    """Of which table, where in it, what is there, what should be. `mend`: for the statement that mends it."""

    part: str
    place: str
    actual: str
    expected: str
    mend: msgspec.Raw


# The window has become another, and a server has yet to compute the series anew, or is at it: nothing to compare with.
STALE = Difference("series_head", "stale", "true", "false", msgspec.Raw(b"{}"))


@dataclass(slots=True)
class Report:
    """How many differences there are in each table, and the first of them."""

    examples: dict[str, list[Difference]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, page: list[Difference]) -> None:
        """Counts all of them, keeps what is to be shown."""
        for difference in page:
            shown = self.examples.setdefault(difference.part, [])
            self.counts[difference.part] = self.counts.get(difference.part, 0) + 1
            if len(shown) < MAX_SHOWN:
                shown.append(difference)

    def merge(self, other: "Report") -> None:
        """Adds those of another comparison."""
        for part, count in other.counts.items():
            self.counts[part] = self.counts.get(part, 0) + count
            self.examples[part] = [*self.examples.get(part, []), *other.examples[part]][:MAX_SHOWN]

    @property
    def count(self) -> int:
        """Of all tables."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class _Ranked:
    """An instance's version, and the rank that is stored with it."""

    instance_id: str
    app_version: str
    version_rank: str

    def difference(self) -> Difference | None:
        """None where the rank is the version's."""
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
    """All differences."""
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
    """Whoever mends, alone on the database; None where another process does so."""
    async with database.dedicated_connection() as connection:
        yield Repairer(connection) if await connection.fetch_value(bool, "check.try_repair_lock") else None


class Repairer:
    """Mends what is derived. All of it on one connection, so that it ends with the lock that keeps it alone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def repair(self) -> tuple[Report, Report]:
        """Everything; what was mended, and what is left."""
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
        """Whether there was something to be mended yet."""
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
