"""The interface to named statements: fetch rows as instances of a class, one row or scalars, or only execute."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Parameters = Mapping[str, object]
Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a statement. `count` is the number of rows that it returned or changed."""

    columns: Sequence[str]
    rows: Sequence[Row]
    count: int

    def rows_as(self, row_type: type[T]) -> list[T]:
        """All rows, each as `row_type(column=value, ...)`."""
        return [row_type(**dict(zip(self.columns, row, strict=True))) for row in self.rows]


class Reader(ABC):
    """Runs SELECT statements of sql/queries by name, with named parameters.

    Implemented by the pool (`Database`), by a dedicated connection (`Connection`), and by a transaction with one
    snapshot of the database (`Database.read_consistently`). Methods raise DatabaseUnavailable, DatabaseBusy,
    DatabaseFull, QueryTooSlow, UnstorableData or StatementFailed.
    """

    @abstractmethod
    async def _run(self, name: str, parameters: Parameters) -> Result: ...

    async def fetch(self, row_type: type[T], name: str, /, **parameters: object) -> list[T]:
        """All rows, each as `row_type(column=value, ...)`."""
        return (await self._run(name, parameters)).rows_as(row_type)

    async def fetch_one(self, row_type: type[T], name: str, /, **parameters: object) -> T | None:
        """The first row; None if there is none."""
        rows = await self.fetch(row_type, name, **parameters)
        return rows[0] if rows else None

    async def fetch_values(self, value_type: type[T], name: str, /, **parameters: object) -> list[T]:
        """The first column of all rows. Raises TypeError for NULL and for a value that is not a `value_type`."""
        return [_check_type(value_type, row[0], name) for row in (await self._run(name, parameters)).rows]

    async def fetch_value(self, value_type: type[T], name: str, /, **parameters: object) -> T | None:
        """The first column of the first row; None for NULL and for no row. Raises as `fetch_values`."""
        rows = (await self._run(name, parameters)).rows
        return None if not rows or rows[0][0] is None else _check_type(value_type, rows[0][0], name)


class StatementRunner(Reader):
    """A Reader that also runs statements for their effect."""

    async def execute(self, name: str, /, **parameters: object) -> int:
        """Runs a statement, discards its rows, and returns the number of rows that it returned or changed."""
        return (await self._run(name, parameters)).count


def _check_type(value_type: type[T], value: object, name: str) -> T:
    if not isinstance(value, value_type):
        raise TypeError(f"{name} returned {type(value).__name__}, expected {value_type.__name__}")
    return value
