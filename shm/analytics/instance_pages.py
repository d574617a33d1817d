"""Reads pages of instances in any order: after a row, before a row, or around an instance.

A page continues at the sort key of a row (keyset pagination), in either direction, so its cost does not grow with the
number of pages before it. Only the number of rows before a page around an instance is counted.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from shm.analytics import applications
from shm.analytics.applications import HiddenKeys
from shm.analytics.first_rows import FirstRowsCache
from shm.analytics.instances import MAX_PAGE_BYTES, InstanceFilter, InstancePage, instance_from_row
from shm.analytics.list_orders import NewestFirst, Order, Parameters, Row, Sorted, available
from shm.analytics.scan_limiter import MAX_SCAN_S, ScanLimiter
from shm.analytics.sorting import Sorting
from shm.db.conditions import Condition, Conditions
from shm.db.database import Database
from shm.db.statement_runner import Reader

T = TypeVar("T")

END = "end"  # the page token of the last page, in the direction backwards


@dataclass(frozen=True, slots=True)
class _Around:
    """The rows around a place. `is_certain`: another row follows them, so that rows behind it change nothing."""

    rows: list[Row]
    next: str | None
    previous: str | None
    rows_before: int
    is_certain: bool

    def to_page(self, head: int, hidden_keys: HiddenKeys) -> InstancePage:
        """The page that shows them."""
        return _to_page(
            head, self.rows, hidden_keys, next=self.next, previous=self.previous, rows_before=self.rows_before
        )


async def _around(order: Order, reader: Reader, parameters: Parameters, own: "_Rows", limit: int) -> _Around:
    """Up to `limit` rows around the only row of `own`, half of the page's bytes on each side."""

    def of_page(limit: int) -> Parameters:
        return {**parameters, "limit": limit, "max_bytes": MAX_PAGE_BYTES // 2}

    wanted = limit // 2
    earlier = _Rows.of(await order.select_before(reader, of_page(max(1, wanted)), order.token(own.rows[0])))
    # From the row before the instance on, so that the instance is included if it matches.
    begin = order.token(earlier.rows[0]) if earlier.rows else None
    before = earlier.rows[:wanted]
    later_limit = limit - len(before)
    later_rows = await order.select_after(reader, of_page(later_limit), begin)
    later = _Rows.of(later_rows)
    rows = [*before[::-1], *later.rows]
    has_previous = earlier.has_more or len(before) < len(earlier.rows)
    rows_before = 0
    if has_previous and rows:
        rows_before = await order.count_before(reader, parameters, order.token(rows[0]))
    return _Around(
        rows,
        next=order.token(later.rows[-1]) if later.has_more else None,
        previous=order.token(rows[0]) if has_previous and rows else None,
        rows_before=rows_before,
        is_certain=available(later_rows) > later_limit,
    )


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
        self._first_rows = FirstRowsCache()

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
            own = _Rows.of(await order.select_row(reader, of_instance))
            if not own.rows:
                return None
            first = await order.first_rows(reader, parameters)
            if first is not None:
                of_first = parameters | {"conditions": first.conditions()}
                page = await _around(order.of_few(), reader, of_first, own, limit)
                if page.is_certain or first.end is None:
                    return page.to_page(own.head, hidden_keys)
            page = await _around(order, reader, parameters, own, limit)
            return page.to_page(own.head, hidden_keys)

        return await self._scan(read)

    async def _scan(self, read: Callable[[Reader], Awaitable[T]]) -> T:
        async with self._scans.slot():
            return await self._database.read_consistently(read, MAX_SCAN_S)

    async def _order(self, sorting: Sorting) -> tuple[Order, HiddenKeys]:
        hidden_keys = await applications.select_hidden_keys(self._database)
        if sorting.is_default:
            return NewestFirst(), hidden_keys
        return Sorted(sorting, hidden_keys, self._first_rows), hidden_keys

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
