"""Reads pages of instances in any order: after a row, before a row, or around an instance.

A page continues at the sort key of a row (keyset pagination), in either direction, so its cost does not grow with the
number of pages before it. Only the number of rows before a page around an instance is counted.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from shm.analytics import applications
from shm.analytics.applications import HiddenKeys
from shm.analytics.instances import MAX_PAGE_BYTES, InstanceFilter, InstancePage, instance_from_row
from shm.analytics.scan_limiter import MAX_SCAN_S, ScanLimiter
from shm.analytics.sorting import Sorting, SortKey
from shm.core import page_tokens
from shm.db.conditions import Condition, Conditions
from shm.db.database import Database
from shm.db.statement_runner import Reader

T = TypeVar("T")

END = "end"  # the page token of the last page, in the direction backwards

Row = Mapping[str, Any]


class _Order(Protocol):
    """An order of the list: its statements, and the sort keys of its rows as parameters and as page tokens."""

    @property
    def forwards(self) -> str:
        """The statement of a page after a row."""

    @property
    def backwards(self) -> str:
        """The statement of a page before a row, the nearest first."""

    @property
    def count_before(self) -> str:
        """The statement that counts the rows before a row."""

    def parameters(self, token: str | None) -> dict[str, object]:
        """The sort order and the row of a page token as parameters. Raises BadRequest."""

    def token(self, row: Row) -> str:
        """The page token of a row."""


@dataclass(frozen=True, slots=True)
class _NewestFirst:
    """The default order, which has an index."""

    forwards: str = "lists.select_newest"
    backwards: str = "lists.select_newest_before"
    count_before: str = "lists.count_newest_before"

    def parameters(self, token: str | None) -> dict[str, object]:
        seen, instance_id = (None, None) if token is None else page_tokens.decode_page_token(token)
        return {"after_seen": seen, "after_id": instance_id}

    def token(self, row: Row) -> str:
        return page_tokens.encode_page_token(row["last_seen_at"], row["instance_id"])


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Any other order. Backwards, an ascending order is read in the descending one, and the other way round."""

    sorting: Sorting
    hidden_keys: HiddenKeys
    count_before: str = "lists.count_sorted_before"

    @property
    def is_ascending(self) -> bool:
        return self.sorting.order == "asc"

    @property
    def forwards(self) -> str:
        return "lists.select_ascending" if self.is_ascending else "lists.select_descending"

    @property
    def backwards(self) -> str:
        return "lists.select_descending" if self.is_ascending else "lists.select_ascending"

    def parameters(self, token: str | None) -> dict[str, object]:
        key = None if token is None else self.sorting.decode_page_token(token)
        return {
            "column": self.sorting.by,
            "metric": self.sorting.metric,
            "hiding_apps": [slug for slug, keys in self.hidden_keys.items() if self.sorting.metric in keys],
            "direction": 1 if self.is_ascending else -1,
            "after_type_rank": None if key is None else key.type_rank,
            "after_number": None if key is None else key.number,
            "after_text": None if key is None else key.text,
            "after_id": None if key is None else key.instance_id,
        }

    def token(self, row: Row) -> str:
        return self.sorting.encode_page_token(SortKey(row["type_rank"], row["number"], row["text"], row["instance_id"]))


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
        parameters = await self._parameters(instance_filter, hidden_keys, limit, offset)
        parameters |= order.parameters(after)
        if sorting.is_default and instance_filter.selects_all and not offset:  # which an index covers
            rows = await self._database.fetch(dict, order.forwards, **parameters)
        else:
            rows = await self._scan(lambda reader: reader.fetch(dict, order.forwards, **parameters))
        page = _Rows.of(rows)
        return _to_page(page.head, page.rows, hidden_keys, next=order.token(page.rows[-1]) if page.has_more else None)

    async def read_before(
        self, instance_filter: InstanceFilter, sorting: Sorting, before: str, limit: int
    ) -> InstancePage:
        """Up to `limit` instances before the page token `before`, or the last ones (`END`), in the list's order.

        Raises BadRequest.
        """
        order, hidden_keys = await self._order(sorting)
        parameters = await self._parameters(instance_filter, hidden_keys, limit)
        parameters |= order.parameters(None if before == END else before)
        page = _Rows.of(await self._scan(lambda reader: reader.fetch(dict, order.backwards, **parameters)))
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
            async def select(statement: str, token: str | None, limit: int) -> _Rows:
                bounds = {"limit": limit, "max_bytes": MAX_PAGE_BYTES // 2}
                return _Rows.of(await reader.fetch(dict, statement, **parameters | bounds | order.parameters(token)))

            own = _Rows.of(await reader.fetch(dict, order.forwards, **of_instance | order.parameters(None)))
            if not own.rows:
                return None
            wanted = limit // 2
            earlier = await select(order.backwards, order.token(own.rows[0]), max(1, wanted))
            # From the row before the instance on, so that the instance is included if it matches.
            begin = order.token(earlier.rows[0]) if earlier.rows else None
            before = earlier.rows[:wanted]
            later = await select(order.forwards, begin, limit - len(before))
            rows = [*before[::-1], *later.rows]
            has_previous = earlier.has_more or len(before) < len(earlier.rows)
            rows_before = 0
            if has_previous and rows:
                counted = await reader.fetch_value(
                    int, order.count_before, **parameters | order.parameters(order.token(rows[0]))
                )
                rows_before = counted or 0
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
