"""The orders of lists of instances: the statements of their pages, and the sort keys of rows as page tokens.

To compute and compare the sort keys of all rows is a third of the cost of a page by a metric. So the page is first read
from a sample of the rows: its last row is a bound for the page of all rows, and most rows beyond it need no sort key.
The first rows of a list that is requested again are found without a scan (`shm.analytics.first_rows`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from shm.analytics.applications import HiddenKeys
from shm.analytics.conditions import depend_on_time
from shm.analytics.first_rows import FIRST_ROWS, MAX_CHANGES, MAX_FIRST_ROWS, FirstRows, FirstRowsCache
from shm.analytics.sorting import ALL_VALUES, NumberRange, Sorting, SortKey
from shm.core import page_tokens
from shm.db.statement_runner import Reader

Row = Mapping[str, Any]
Parameters = Mapping[str, Any]

PAGE_PARAMETERS = ("limit", "offset", "max_bytes")  # the others select the instances of the list


class Order(Protocol):
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

    async def first_rows(self, reader: Reader, parameters: Parameters) -> FirstRows | None:
        """The first rows of the list, if they are known without a scan."""

    def of_few(self) -> "Order":
        """The same order of few rows, which need neither be sampled nor kept."""

    def token(self, row: Row) -> str:
        """The page token of a row."""


class NewestFirst:
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

    async def first_rows(self, reader: Reader, parameters: Parameters) -> None:
        return None

    def of_few(self) -> Order:
        return self

    def token(self, row: Row) -> str:
        return page_tokens.encode_page_token(row["last_seen_at"], row["instance_id"])

    def _row(self, token: str | None) -> Parameters:
        seen, instance_id = (None, None) if token is None else page_tokens.decode_page_token(token)
        return {"after_seen": seen, "after_id": instance_id}


@dataclass(frozen=True, slots=True)
class Sorted:
    """Any other order. Backwards, an ascending order is read in the descending one, and the other way round.

    Without a cache it is an order of few rows.
    """

    sorting: Sorting
    hidden_keys: HiddenKeys
    cache: FirstRowsCache | None

    def check_token(self, token: str) -> None:
        self.sorting.decode_page_token(token)

    async def select_after(self, reader: Reader, parameters: Parameters, token: str | None) -> Sequence[Row]:
        rows = await self._select_first(reader, parameters, token, ascending=self._is_ascending)
        return rows or await self._select_bounded(reader, parameters, token, ascending=self._is_ascending)

    async def select_before(self, reader: Reader, parameters: Parameters, token: str | None) -> Sequence[Row]:
        ascending = not self._is_ascending
        rows = None if token is not None else await self._select_first(reader, parameters, None, ascending=ascending)
        return rows or await self._select_bounded(reader, parameters, token, ascending=ascending)

    async def select_row(self, reader: Reader, parameters: Parameters) -> Sequence[Row]:
        return await self._select(reader, parameters, None, ALL_VALUES, ascending=True)

    async def count_before(self, reader: Reader, parameters: Parameters, token: str) -> int:
        key = self.sorting.decode_page_token(token)
        order = self._order(key, self._numbers_between(None, key, ascending=self._is_ascending))
        return await reader.fetch_value(int, "lists.count_sorted_before", **parameters, **order) or 0

    async def first_rows(self, reader: Reader, parameters: Parameters) -> FirstRows | None:
        return await self._first_rows(reader, parameters, ascending=self._is_ascending)

    def of_few(self) -> Order:
        return replace(self, cache=None)

    def token(self, row: Row) -> str:
        return self.sorting.encode_page_token(_sort_key(row))

    @property
    def _is_ascending(self) -> bool:
        return self.sorting.order == "asc"

    def _key(self, token: str | None) -> SortKey | None:
        return None if token is None else self.sorting.decode_page_token(token)

    async def _select_first(
        self, reader: Reader, parameters: Parameters, token: str | None, *, ascending: bool
    ) -> Sequence[Row] | None:
        """The page of the first rows after a row. None if other rows may be on it, or decide whether it is the last."""
        end = parameters["offset"] + parameters["limit"]
        first = await self._first_rows(reader, parameters, ascending=ascending, end=end if token is None else None)
        if first is None:
            return None
        of_first = {**parameters, "conditions": first.conditions()}
        rows = await self._select(reader, of_first, self._key(token), ALL_VALUES, ascending=ascending)
        return rows if first.end is None or available(rows) > parameters["limit"] else None

    async def _first_rows(
        self, reader: Reader, parameters: Parameters, *, ascending: bool, end: int | None = None
    ) -> FirstRows | None:
        """The first rows in a direction, if they are known. A scan finds them for a first page, up to row `end`."""
        if self.cache is None or self.sorting.by == "counted" or depend_on_time(parameters["conditions"]):
            return None
        list_name = repr((ascending, self._order(None, ALL_VALUES), _without_page(parameters)))
        first = self.cache.get(list_name)
        if first is not None:
            first = await self._with_changes(reader, parameters, first, ascending=ascending)
        if end is not None and end < FIRST_ROWS and (first is None or not first.reach(end)):
            first = await self._scan_first(reader, parameters, end, ascending=ascending)
        self.cache.put(list_name, first)
        return first

    async def _with_changes(
        self, reader: Reader, parameters: Parameters, first: FirstRows, *, ascending: bool
    ) -> FirstRows | None:
        """The rows before the same end as of now. None if too many instances have changed to find them so."""
        cursor = await reader.fetch_value(int, "feed.select_head")
        assert cursor is not None  # noqa: S101 - the statement always returns a row
        if cursor == first.cursor:
            return first
        if not 0 < cursor - first.cursor <= MAX_CHANGES:
            return None
        candidates = {**_without_page(parameters), "conditions": first.with_changes(parameters["conditions"])}
        instance_ids = await reader.fetch_values(
            str,
            "lists.select_descending_keys" if ascending else "lists.select_ascending_keys",  # backwards from the end
            **candidates,
            **self._order(first.end, ALL_VALUES),
            limit=MAX_FIRST_ROWS + 1,
        )
        return None if len(instance_ids) > MAX_FIRST_ROWS else first.as_of(cursor, instance_ids)

    async def _scan_first(self, reader: Reader, parameters: Parameters, end: int, *, ascending: bool) -> FirstRows:
        """The first rows: more than `end` of them, if there are as many. The bound is one for a page of them."""
        cursor = await reader.fetch_value(int, "feed.select_head")
        assert cursor is not None  # noqa: S101 - the statement always returns a row
        of_page = {**parameters, "limit": end + 1, "offset": 0}
        bound = await self._bound(reader, of_page, None, ascending=ascending)
        rows = await reader.fetch(
            dict,
            "lists.select_ascending_keys" if ascending else "lists.select_descending_keys",
            **_without_page(parameters),
            **self._order(None, self._numbers_between(None, bound, ascending=ascending)),
            limit=FIRST_ROWS + 1,
        )
        keys = [_sort_key(row) for row in rows]
        if bound in keys:  # some of the rows behind it were left out
            keys = keys[: keys.index(bound) + 1]
        elif len(keys) <= FIRST_ROWS:
            return FirstRows([key.instance_id for key in keys], None, cursor)
        return FirstRows([key.instance_id for key in keys[:-1]], keys[-1], cursor)

    async def _select_bounded(
        self, reader: Reader, parameters: Parameters, token: str | None, *, ascending: bool
    ) -> Sequence[Row]:
        key = self._key(token)
        bound = await self._bound(reader, parameters, key, ascending=ascending)
        numbers = self._numbers_between(key, bound, ascending=ascending)
        return await self._select(reader, parameters, key, numbers, ascending=ascending)

    async def _select(
        self, reader: Reader, parameters: Parameters, after: SortKey | None, numbers: NumberRange, *, ascending: bool
    ) -> Sequence[Row]:
        statement = "lists.select_ascending" if ascending else "lists.select_descending"
        return await reader.fetch(dict, statement, **parameters, **self._order(after, numbers))

    async def _bound(
        self, reader: Reader, parameters: Parameters, after: SortKey | None, *, ascending: bool
    ) -> SortKey | None:
        """A row at or after the last one of a page; None if the sample has too few rows, or without a metric."""
        if self.sorting.metric is None or self.cache is None:
            return None
        statement = "lists.select_ascending_bound" if ascending else "lists.select_descending_bound"
        row = await reader.fetch_one(dict, statement, **parameters, **self._order(after, ALL_VALUES))
        return None if row is None else _sort_key(row)

    def _numbers_between(self, begin: SortKey | None, bound: SortKey | None, *, ascending: bool) -> NumberRange:
        """Numbers come first: there is nothing else up to a number, or backwards from one."""
        last = bound if ascending == self._is_ascending else begin
        has_others = last is None or not last.is_number
        return NumberRange.between(begin, bound, ascending=ascending, has_others=has_others)

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


def available(rows: Sequence[Row]) -> int:
    """The number of rows that a statement found for a page, up to one beyond its limit."""
    return rows[0]["available"] or 0


def _without_page(parameters: Parameters) -> Parameters:
    return {name: value for name, value in parameters.items() if name not in PAGE_PARAMETERS}


def _sort_key(row: Row) -> SortKey:
    return SortKey(row["type_rank"], row["number"], row["text"], row["instance_id"])
