"""Compares derived data with its sources, which end in the raw snapshots, and repairs the derived data from them.

The comparisons are in `sql/queries/check.sql` and `check_charts.sql`. Each is one statement, so it is correct while
servers write. The repairs are in `repair.sql`, under the same names. This module compares the ranks of versions,
because Python computes them. Differences are read in pages and are not kept in memory, so their number is not limited.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from shm.core.releases import version_rank
from shm.db.connection import Connection
from shm.db.database import Database

PAGE_SIZE = 500  # differences at a time; a repair of them holds a lock for some tens of milliseconds

# Rows of a repair that reads all leaves of each, under the lock that every install waits for: 5,000 leaves, if each row
# has the maximum.
MAX_LEAVES_ROWS = 20
REPAIRS_OF_LEAVES = ("leaves", "instances")
MAX_EXAMPLES = 20  # examples of each table: a list of a million differences would contain no more information
MAX_ROUNDS = 5  # comparisons of one table, until one finds nothing: a day may have been closed with wrong values

# The order of the repairs: each comparison uses the data that the repairs before it have corrected.
COMPARISONS = {
    "orphans": "snapshots of no instance",
    "leaves": "the leaves of snapshots",
    "instances": "current snapshots",
    "ranks": "the ranks of versions",
    "tallies": "counts and KPIs",
    "series": "charts",
    "versions": "first reports of versions",
    "absences": "returns of lost installs",
    "distributions": "spreads",
}

# Without repairs, comparisons are independent of each other. Each uses one core of PostgreSQL: more at once would take
# cores from the intake. The comparison of charts takes as long as the others together, so it begins first.
MAX_CONCURRENT_COMPARISONS = 2
SLOWEST_COMPARISON = "series"

# Called before each comparison with its description, its number and the number of all comparisons.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of a derived table, its actual and its expected value. `repair_row`: the input of the repair."""

    table_name: str
    row_key: str
    actual: str
    expected: str
    repair_row: msgspec.Raw


# The active window has changed, and no server has finished the new computation of the series yet. The series cannot be
# compared until then.
STALE_SERIES = Difference("series_head", "stale", "true", "false", msgspec.Raw(b"{}"))


@dataclass(slots=True)
class Report:
    """The number of differences in each table, and the first of them."""

    examples: dict[str, list[Difference]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, page: list[Difference]) -> None:
        """Counts all differences of a page and keeps the examples."""
        for difference in page:
            examples = self.examples.setdefault(difference.table_name, [])
            self.counts[difference.table_name] = self.counts.get(difference.table_name, 0) + 1
            if len(examples) < MAX_EXAMPLES:
                examples.append(difference)

    def merge(self, other: "Report") -> None:
        """Adds the differences of another report."""
        for table_name, count in other.counts.items():
            self.counts[table_name] = self.counts.get(table_name, 0) + count
            self.examples[table_name] = [*self.examples.get(table_name, []), *other.examples[table_name]][:MAX_EXAMPLES]

    @property
    def count(self) -> int:
        """The number of differences in all tables."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class _StoredRank:
    """The version of an instance, and its stored rank."""

    instance_id: str
    app_version: str
    version_rank: str

    def difference(self) -> Difference | None:
        """The difference between the stored and the computed rank; None if they are equal."""
        expected = version_rank(self.app_version)
        if self.version_rank == expected:
            return None
        repair_row = {"instance_id": self.instance_id, "app_version": self.app_version, "version_rank": expected}
        return Difference(
            "instances",
            f"{self.instance_id[:8]}, version_rank",
            self.version_rank or "nothing",
            expected or "nothing",
            msgspec.Raw(msgspec.json.encode(repair_row)),
        )


@dataclass(frozen=True, slots=True)
class _SeriesSettings:
    active_window: timedelta
    stale: bool


async def find_differences(database: Database, progress: Progress) -> Report:
    """Compares all derived tables, two at a time, and returns the differences."""
    reports = {name: Report() for name in COMPARISONS}
    steps = _steps(sorted(COMPARISONS, key=lambda name: name != SLOWEST_COMPARISON), progress)

    async def compare_next() -> None:
        async with _open_connection(database) as connection:
            for name in steps:
                async for page in _compare(connection, name):
                    reports[name].add(page)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(MAX_CONCURRENT_COMPARISONS):
                group.create_task(compare_next())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    report = Report()
    for each in reports.values():
        report.merge(each)
    return report


@asynccontextmanager
async def open_repairer(database: Database) -> AsyncIterator["Repairer | None"]:
    """Yields the only repairer of the database; None if another process repairs it."""
    async with database.dedicated_connection() as repairing, _open_connection(database) as comparing:
        yield Repairer(comparing, repairing) if await repairing.fetch_value(bool, "repair.try_lock") else None


class Repairer:
    """Repairs derived data.

    All repairs use the connection that holds the repair lock, so they end if the lock is lost. Its plans are the usual
    ones: a repair looks up a few rows while it holds a lock that others wait for.
    """

    def __init__(self, comparing: Connection, repairing: Connection) -> None:
        self._comparing = comparing
        self._repairing = repairing

    async def repair(self, progress: Progress) -> tuple[Report, Report]:
        """Repairs all tables. Returns the repaired and the remaining differences."""
        repaired, remaining = Report(), Report()
        for name in _steps(COMPARISONS, progress):
            remaining.merge(await self._repair_table(name, repaired))
        return repaired, remaining

    async def _repair_table(self, name: str, repaired: Report) -> Report:
        """Repairs until a comparison finds nothing. Returns the differences that the last one found."""
        found = Report()
        for _ in range(MAX_ROUNDS):
            found = Report()
            async for page in _compare(self._comparing, name):
                found.add(page)
                if page != [STALE_SERIES] and await self._repair_page(name, page):
                    repaired.add(page)
            if not found.count:
                break
        return found

    async def _repair_page(self, name: str, page: list[Difference]) -> bool:
        """Repairs a page of differences. Returns whether any of them still existed."""
        rows = list(dict.fromkeys(bytes(difference.repair_row) for difference in page))  # one for all of an instance
        size = MAX_LEAVES_ROWS if name in REPAIRS_OF_LEAVES else PAGE_SIZE
        repaired = 0
        for start in range(0, len(rows), size):
            chunk = msgspec.json.encode([msgspec.Raw(row) for row in rows[start : start + size]]).decode()
            repaired += await self._repairing.execute(f"repair.{name}", rows=chunk)
        return repaired > 0


@asynccontextmanager
async def _open_connection(database: Database) -> AsyncIterator[Connection]:
    """A connection whose plans suit statements that read everything."""
    async with database.dedicated_connection() as connection:
        await connection.execute("check.set_plans")
        yield connection


def _steps(names: Iterable[str], progress: Progress) -> Iterator[str]:
    """The names of all comparisons, each after its announcement."""
    for number, name in enumerate(names, 1):
        progress(COMPARISONS[name], number, len(COMPARISONS))
        yield name


async def _compare(connection: Connection, name: str) -> AsyncIterator[list[Difference]]:
    """The differences that one comparison finds, in pages."""
    if name == "ranks":
        async for stored in connection.fetch_pages(_StoredRank, "check.select_version_ranks", PAGE_SIZE):
            if differences := [difference for each in stored if (difference := each.difference()) is not None]:
                yield differences
        return
    parameters: dict[str, object] = {}
    if name in ("orphans", "instances"):
        parameters["until"] = await connection.fetch_value(int, "series.select_settled_cursor")
    if name == "series":
        (series,) = await connection.fetch(_SeriesSettings, "check_charts.select_settings")
        if series.stale:
            yield [STALE_SERIES]
            return
        parameters["active_window"] = series.active_window
        seeds = {name: secrets.randbits(63) for name in ("hour_seed", "day_seed")}
        if not await connection.fetch_value(int, "check_charts.count_suspects", **seeds, **parameters):
            return  # the comparison of each value would find nothing
    file = "check_charts" if name == "series" else "check"
    async for page in connection.fetch_pages(Difference, f"{file}.{name}", PAGE_SIZE, **parameters):
        yield page
