"""Reads pages of instances in any order: after a row, before a row, or around an instance.

A page continues at the sort key of a row (keyset pagination), in either direction, so its cost does not grow with the
number of pages before it. Only the number of rows before a page around an instance is counted.

To compute and compare the sort keys of all rows is a third of the cost of a page by a metric. So the page is first read
from a sample of the rows: its last row is a bound for the page of all rows, and most rows beyond it need no sort key.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from shm.analytics import applications
from shm.analytics.applications import HiddenKeys
from shm.analytics.instances import MAX_PAGE_BYTES, InstanceFilter, InstancePage, instance_from_row
from shm.analytics.scan_limiter import MAX_SCAN_S, ScanLimiter
from shm.analytics.sorting import ALL_VALUES, NumberRange, Sorting, SortKey
from shm.core import page_tokens
from shm.db.conditions import Condition, Conditions
from shm.db.database import Database
from shm.db.statement_runner import Reader

T = TypeVar("T")

END = "end"  # the page token of the last page, in the direction backwards

Row = Mapping[str, Any]
Parameters = dict[str, object]


class _Order(Protocol):
    """An order of the list: its statements, and the sort keys of its rows as parameters and as page tokens."""

    def check_token(self, token: str) -> None:
        """Raises BadRequest unless it is a page token of this order."""

    async def select_after(self, reader: Reader, parameters: Parameters, token: str | None) -> Sequence[Row]:
        """The page after the row of a page token, or the first one."""

    async def select_before(self, reader: Reader, parameters: Parameters, token: str | None) -> Sequence[Row]:
        """The page before a row, the nearest first, or the last one."""

    async def select_row(self, reader: Reader, parameters: Parameters) -> Sequence[Row]:
        """The page of the only instance that the parameters select."""

    async def count_before(self, reader: Reader, parameters: Parameters, token: str) -> int:
        """The number of rows before a row."""

    def token(self, row: Row) -> str:
        """The page token of a row."""


class _NewestFirst:
    """The default order, which has an index."""

    def check_token(self, token: str) -> None:
        page_tokens.decode_page_token(token)

    async def select_after(self, reader: Reader, parameters: Parameters, token: str | None) -> Sequence[Row]:
        return await reader.fetch(dict, "lists.select_newest", **parameters, **self._row(token))

    async def select_before(self, reader: Reader, parameters: Parameters, token: str | None) -> Sequence[Row]:
        return await reader.fetch(dict, "lists.select_newest_before", **parameters, **self._row(token))

    async def select_row(self, reader: Reader, parameters: Parameters) -> Sequence[Row]:
        return await self.select_after(reader, parameters, None)

    async def count_before(self, reader: Reader, parameters: Parameters, token: str) -> int:
        return await reader.fetch_value(int, "lists.count_newest_before", **parameters, **self._row(token)) or 0

    def token(self, row: Row) -> str:
        return page_tokens.encode_page_token(row["last_seen_at"], row["instance_id"])

    def _row(self, token: str | None) -> Parameters:
        seen, instance_id = (None, None) if token is None else page_tokens.decode_page_token(token)
        return {"after_seen": seen, "after_id": instance_id}


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Any other order. Backwards, an ascending order is read in the descending one, and the other way round."""

    sorting: Sorting
    hidden_keys: HiddenKeys

    def check_token(self, token: str) -> None:
        self.sorting.decode_page_token(token)

    async def select_after(self, reader: Reader, parameters: Parameters, token: str | None) -> Sequence[Row]:
        key = self._key(token)
        bound = await self._bound(reader, parameters, key, ascending=self._is_ascending)
        # Numbers come first: up to a number there is nothing else.
        has_others = bound is None or not bound.is_number
        return await self._select(reader, parameters, key, bound, ascending=self._is_ascending, has_others=has_others)

    async def select_before(self, reader: Reader, parameters: Parameters, token: str | None) -> Sequence[Row]:
        key = self._key(token)
        bound = await self._bound(reader, parameters, key, ascending=not self._is_ascending)
        has_others = key is None or not key.is_number
        return await self._select(
            reader, parameters, key, bound, ascending=not self._is_ascending, has_others=has_others
        )

    async def select_row(self, reader: Reader, parameters: Parameters) -> Sequence[Row]:
        return await self._select(reader, parameters, None, None, ascending=True, has_others=True)

    async def count_before(self, reader: Reader, parameters: Parameters, token: str) -> int:
        key = self.sorting.decode_page_token(token)
        numbers = NumberRange.between(None, key, ascending=self._is_ascending, has_others=not key.is_number)
        order = self._order(key, numbers)
        return await reader.fetch_value(int, "lists.count_sorted_before", **parameters, **order) or 0

    def token(self, row: Row) -> str:
        return self.sorting.encode_page_token(_sort_key(row))

    @property
    def _is_ascending(self) -> bool:
        return self.sorting.order == "asc"

    def _key(self, token: str | None) -> SortKey | None:
        return None if token is None else self.sorting.decode_page_token(token)

    async def _select(
        self,
        reader: Reader,
        parameters: Parameters,
        after: SortKey | None,
        bound: SortKey | None,
        *,
        ascending: bool,
        has_others: bool,
    ) -> Sequence[Row]:
        numbers = NumberRange.between(after, bound, ascending=ascending, has_others=has_others)
        statement = "lists.select_ascending" if ascending else "lists.select_descending"
        return await reader.fetch(dict, statement, **parameters, **self._order(after, numbers))

    async def _bound(
        self, reader: Reader, parameters: Parameters, after: SortKey | None, *, ascending: bool
    ) -> SortKey | None:
        """A row at or after the last one of a page; None if the sample has too few rows, or without a metric."""
        if self.sorting.metric is None:
            return None
        statement = "lists.select_ascending_bound" if ascending else "lists.select_descending_bound"
        row = await reader.fetch_one(dict, statement, **parameters, **self._order(after, ALL_VALUES))
        return None if row is None else _sort_key(row)

    def _order(self, after: SortKey | None, numbers: NumberRange) -> Parameters:
        return {
            "column": self.sorting.by,
            "metric": self.sorting.metric,
            "hiding_apps": [slug for slug, keys in self.hidden_keys.items() if self.sorting.metric in keys],
            "direction": 1 if self._is_ascending else -1,
            "after_type_rank": None if after is None else after.type_rank,
            "after_number": None if after is None else after.number,
            "after_text": None if after is None else after.text,
            "after_id": None if after is None else after.instance_id,
            **(ALL_VALUES if self.sorting.metric is None else numbers).parameters,
        }


def _sort_key(row: Row) -> SortKey:
    return SortKey(row["type_rank"], row["number"], row["text"], row["instance_id"])


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a page, from the row at which it begins, in either direction. `head`: the feed's cursor."""

    head: int
    rows: list[Row]
    has_more: bool

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "_Rows":
        """Without the row that a statement returns where nothing matches."""
        found = [row for row in rows if row["instance_id"] is not None]
        return cls(rows[0]["head"], found, bool(found) and rows[0]["available"] > len(found))


class InstancePages:
    """Reads pages of instances of one database."""

    def __init__(self, database: Database, scans: ScanLimiter) -> None:
        self._database = database
        self._scans = scans

    async def read_after(
        self, instance_filter: InstanceFilter, sorting: Sorting, after: str | None, limit: int, offset: int = 0
    ) -> InstancePage:
        """Up to `limit` instances after the page token `after`, or the first ones, without the next `offset` rows.

        The page is shorter if it reaches `MAX_PAGE_BYTES`. Raises BadRequest.
        """
        order, hidden_keys = await self._order(sorting)
        if after is not None:
            order.check_token(after)
        parameters = await self._parameters(instance_filter, hidden_keys, limit, offset)
        if sorting.is_default and instance_filter.selects_all and not offset:  # which an index covers
            rows = await order.select_after(self._database, parameters, after)
        else:
            rows = await self._scan(lambda reader: order.select_after(reader, parameters, after))
        page = _Rows.of(rows)
        return _to_page(page.head, page.rows, hidden_keys, next=order.token(page.rows[-1]) if page.has_more else None)

    async def read_before(
        self, instance_filter: InstanceFilter, sorting: Sorting, before: str, limit: int
    ) -> InstancePage:
        """Up to `limit` instances before the page token `before`, or the last ones (`END`), in the list's order.

        Raises BadRequest.
        """
        order, hidden_keys = await self._order(sorting)
        token = None if before == END else before
        if token is not None:
            order.check_token(token)
        parameters = await self._parameters(instance_filter, hidden_keys, limit)
        page = _Rows.of(await self._scan(lambda reader: order.select_before(reader, parameters, token)))
        previous = order.token(page.rows[-1]) if page.has_more else None
        return _to_page(page.head, page.rows[::-1], hidden_keys, previous=previous)

    async def read_around(
        self, instance_filter: InstanceFilter, sorting: Sorting, instance_id: str, limit: int
    ) -> InstancePage | None:
        """Up to `limit` instances around the place of an instance, which itself need not match the filter.

        The page has the number of matching rows before it. None if the instance does not exist.
        """
        order, hidden_keys = await self._order(sorting)
        parameters = await self._parameters(instance_filter, hidden_keys, limit)
        only = Conditions([Condition("condition_instance", {"value": instance_id})])
        of_instance = await self._parameters(InstanceFilter(), hidden_keys, 1) | {"conditions": only}

        async def read(reader: Reader) -> InstancePage | None:
            def of_page(limit: int) -> Parameters:
                return parameters | {"limit": limit, "max_bytes": MAX_PAGE_BYTES // 2}

            own = _Rows.of(await order.select_row(reader, of_instance))
            if not own.rows:
                return None
            wanted = limit // 2
            earlier = _Rows.of(await order.select_before(reader, of_page(max(1, wanted)), order.token(own.rows[0])))
            # From the row before the instance on, so that the instance is included if it matches.
            begin = order.token(earlier.rows[0]) if earlier.rows else None
            before = earlier.rows[:wanted]
            later = _Rows.of(await order.select_after(reader, of_page(limit - len(before)), begin))
            rows = [*before[::-1], *later.rows]
            has_previous = earlier.has_more or len(before) < len(earlier.rows)
            rows_before = 0
            if has_previous and rows:
                rows_before = await order.count_before(reader, parameters, order.token(rows[0]))
            return _to_page(
                own.head,
                rows,
                hidden_keys,
                next=order.token(later.rows[-1]) if later.has_more else None,
                previous=order.token(rows[0]) if has_previous and rows else None,
                rows_before=rows_before,
            )

        return await self._scan(read)

    async def _scan(self, read: Callable[[Reader], Awaitable[T]]) -> T:
        async with self._scans.slot():
            return await self._database.read_consistently(read, MAX_SCAN_S)

    async def _order(self, sorting: Sorting) -> tuple[_Order, HiddenKeys]:
        hidden_keys = await applications.select_hidden_keys(self._database)
        return _NewestFirst() if sorting.is_default else _Sorted(sorting, hidden_keys), hidden_keys

    async def _parameters(
        self, instance_filter: InstanceFilter, hidden_keys: HiddenKeys, limit: int, offset: int = 0
    ) -> dict[str, object]:
        return {
            **await instance_filter.to_parameters(self._database),
            "conditions": instance_filter.to_conditions(hidden_keys),
            "limit": limit,
            "offset": offset,
            "max_bytes": MAX_PAGE_BYTES,
        }


def _to_page(
    head: int,
    rows: list[Row],
    hidden_keys: HiddenKeys,
    *,
    next: str | None = None,
    previous: str | None = None,
    rows_before: int | None = None,
) -> InstancePage:
    items = [instance_from_row(row, hidden_keys) for row in rows]
    return InstancePage(head, items, next, previous, rows_before)
