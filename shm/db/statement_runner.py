"""How named statements are called: rows as values of a class, one row, one scalar, or none at all."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Parameters = Mapping[str, object]
Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement returned; `count` is how many rows it returned or changed."""

    columns: Sequence[str]
    rows: Sequence[Row]
    count: int

    def rows_as(self, shape: type[T]) -> list[T]:
        """Each row as `shape(column=value, ...)`."""
        return [shape(**dict(zip(self.columns, row, strict=True))) for row in self.rows]


class Reader(ABC):
    """Reads through statements of sql/queries by their names; parameters are passed by name.

    From the pool, from a connection of one's own, or in one snapshot of the database (`Database.read_consistently`).
    Raises DatabaseUnavailable, DatabaseBusy, DatabaseFull, QueryTooSlow, UnstorableData or StatementFailed.
    """

    @abstractmethod
    async def _run(self, name: str, parameters: Parameters) -> Result: ...

    async def fetch(self, shape: type[T], name: str, /, **parameters: object) -> list[T]:
        """Every row, as `shape(column=value, ...)`."""
        return (await self._run(name, parameters)).rows_as(shape)

    async def fetch_one(self, shape: type[T], name: str, /, **parameters: object) -> T | None:
        """The first row, or None where there is none."""
        rows = await self.fetch(shape, name, **parameters)
        return rows[0] if rows else None

    async def fetch_values(self, kind: type[T], name: str, /, **parameters: object) -> list[T]:
        """The first column of every row; none of them is NULL. Raises TypeError for a value that is no `kind`."""
        return [_typed(kind, row[0], name) for row in (await self._run(name, parameters)).rows]

    async def fetch_value(self, kind: type[T], name: str, /, **parameters: object) -> T | None:
        """The first column of the first row; None for NULL and for no row. Raises as `fetch_values`."""
        rows = (await self._run(name, parameters)).rows
        return None if not rows or rows[0][0] is None else _typed(kind, rows[0][0], name)


class StatementRunner(Reader):
    """The same, and statements that are run for their effect."""

    async def execute(self, name: str, /, **parameters: object) -> int:
        """Runs a statement whose rows nobody wants, and returns how many rows it returned or changed."""
        return (await self._run(name, parameters)).count


def _typed(kind: type[T], value: object, name: str) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{name} returned {type(value).__name__}, wanted is {kind.__name__}")
    return value
