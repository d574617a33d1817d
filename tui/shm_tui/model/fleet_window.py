"""A window on a fleet that is larger than the store: the rows around the view, in the server's order and number.

The server sorts, filters and counts; the window has some pages of the result, and loads others when the view or the
cursor comes near its ends. While instances change, the pages around the cursor are requested again, at most every two
seconds and for a tenth of the time. Between two requests loaded rows change in place. Rows whose number the server has
not counted yet, or cannot count, are shown without it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic

from shm_client import ClientError, Instance, Page, UnknownApplicationError
from shm_tui.model.live_rows import LiveRows
from shm_tui.model.pacing import pause_after
from shm_tui.model.place_sort import column_sorting
from shm_tui.model.row_count import RowCount

PAGE_SIZE = 200  # instances: more than the rows of any screen
MAX_WINDOW = 2_000  # rows; the pages at the far end are dropped
PREFETCH_MARGIN = 100  # rows between the view and the window's end, at which the next page is requested
MAX_OFFSET = 100_000  # rows that the server skips; a jump into the middle of more rows ends at this row
RETRY_S = 1.0  # after a failed request; the feed shows the failure


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """What the window shows: the conditions of the filter, and the order."""

    conditions: tuple[str, ...]
    sorting: tuple[str, str]


@dataclass(slots=True)
class _Pages:
    """Rows that follow each other, the index of the first one, and the queries of the adjoining pages.

    `loaded` are those of the last page that was received; the store has all, and changes them with the feed.
    `total` is the last known number of rows, at least the end of these.
    """

    ids: list[str]
    loaded: list[Instance]
    first: int
    total: int
    previous: str | None
    next: str | None
    is_whole: bool = False  # there are no rows before and after them, so that they need no count

    @property
    def end(self) -> int:
        """The index after the last row."""
        return self.first + len(self.ids)

    def prepend(self, page: Page) -> None:
        """Adds the page before, and drops rows at the end beyond MAX_WINDOW."""
        self.loaded = page.instances
        self.ids = [*_ids(page), *self.ids]
        self.first = max(0, self.first - len(page.instances)) if page.previous else 0
        self.previous = page.previous
        if len(self.ids) > MAX_WINDOW:
            del self.ids[MAX_WINDOW:]
            self.next = None

    def append(self, page: Page) -> None:
        """Adds the page after, and drops rows at the beginning beyond MAX_WINDOW."""
        self.loaded = page.instances
        self.ids = [*self.ids, *_ids(page)]
        self.next = page.next
        self.total = max(self.total, self.end)
        surplus = len(self.ids) - MAX_WINDOW
        if surplus > 0:
            del self.ids[:surplus]
            self.first += surplus
            self.previous = None


class FleetWindow:
    """Keeps the window of a store up to date while it runs."""

    def __init__(self, rows: LiveRows, is_larger_than_store: Callable[[], bool]) -> None:
        self._rows, self._store, self._is_larger_than_store = rows, rows.store, is_larger_than_store
        self._request: WindowRequest | None = None
        self._shown: WindowRequest | None = None  # the request whose rows the store has
        self._pages = _Pages([], [], 0, 0, None, None)
        self._count = RowCount(rows.client, rows.slug, self._apply_count)
        self._wake = asyncio.Event()
        self._unreachable_rows: range | None = None  # the rows in view, if they could not be loaded
        self._is_outdated = False
        self._refresh_at = 0.0  # the monotonic time before which nothing is requested again
        self._store.on_view_moved = self._wake.set

    @property
    def is_shown(self) -> bool:
        """Whether the rows are those of the present filter and order."""
        return self._request is not None and self._shown == self._request

    @property
    def is_requested(self) -> bool:
        """Whether the server filters and sorts the rows."""
        return self._request is not None

    @property
    def is_counting(self) -> bool:
        """Whether the number of rows is unknown so far, and no request for it has failed."""
        return self._store.known_count is None and not self._count.has_failed

    @property
    def is_uncounted(self) -> bool:
        """Whether the number of rows is unknown, because the last request for it failed."""
        return self._store.known_count is None and self._count.has_failed

    @property
    def is_unreachable(self) -> bool:
        """Whether the rows in view could not be loaded: a jump far into a fleet with more than MAX_OFFSET rows."""
        return self._request is not None and self._store.rows_in_view == self._unreachable_rows

    def sync(self) -> None:
        """Follows the filter and the order of the store. Call it after a change of one of them."""
        request = self._wanted_request()
        if request != self._request:
            self._request = request
            self._count.request(None if request is None else request.conditions)
            self._wake.set()
        if request is None and self._shown is not None:
            self._shown = None
            self._rows.release(self._store.leave_window())

    def mark_outdated(self) -> None:
        """An instance changed: order and number may have changed too."""
        if not self._is_outdated:
            self._is_outdated = True
            self._wake.set()

    async def run(self) -> None:
        """Requests pages and their number until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._count.run())
            tasks.create_task(self._load_pages())

    async def _load_pages(self) -> None:
        while True:
            self._wake.clear()
            self.sync()
            try:
                has_more = await self._step()
            except ClientError:
                await asyncio.sleep(RETRY_S)
                continue
            if has_more:
                continue
            pause_s = max(0.0, self._refresh_at - monotonic()) if self._is_outdated and self._request else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    def _wanted_request(self) -> WindowRequest | None:
        """None: the store has all instances, or only the console evaluates the filter or the order."""
        store = self._store
        sorting = column_sorting(store.sort_column, store.is_descending)
        is_evaluated = not store.filter or store.filter.server_filter.is_whole
        if not self._is_larger_than_store() or sorting is None or not is_evaluated:
            return None
        return WindowRequest(store.filter.server_filter.conditions, sorting)

    async def _step(self) -> bool:
        """Requests what is missing. Returns whether there may be more to do at once."""
        request = self._request
        if request is None:
            return False
        if request != self._shown:
            pages = await self._load(request, self._store.anchor_id)
            if not pages.is_whole:
                await self._count.wait()
        elif (missing := self._missing()) is not None:
            before = self._pages.first, self._pages.end
            pages = await self._load_missing(request, missing)
            if request == self._request:
                self._show(request, pages)
                if self._missing() == missing and (pages.first, pages.end) == before:
                    self._unreachable_rows = self._store.rows_in_view
            return True
        elif self._is_outdated and monotonic() >= self._refresh_at and not self._store.is_paused:
            pages = await self._refresh(request)
        else:
            return False
        if request == self._request:
            self._show(request, pages, is_other_list=request != self._shown and pages.first == 0)
        return True

    def _missing(self) -> range | None:
        """The rows of the view that are not loaded, with some beyond it; None if all are."""
        rows, pages = self._store.rows_in_view, self._pages
        start, stop = max(0, rows.start - PREFETCH_MARGIN), rows.stop + PREFETCH_MARGIN
        if pages.next is None or self._count.number is not None:
            stop = min(stop, pages.total)
        else:  # the rows go on after the last known one; a view beyond it is that of the list before
            start = min(start, pages.end)
        if start >= stop or rows == self._unreachable_rows or (pages.first <= start and stop <= pages.end):
            return None
        return range(start, stop)

    async def _load_missing(self, request: WindowRequest, missing: range) -> _Pages:
        """Loads these rows: the adjoining page, or a page elsewhere after a jump."""
        pages = replace(self._pages)  # which stay as they are if another filter is applied meanwhile
        if missing.start < pages.first <= missing.stop and pages.previous is not None:
            pages.prepend(await self._rows.client.next_page(pages.previous))
            return pages
        if missing.start <= pages.end < missing.stop and pages.next is not None:
            pages.append(await self._rows.client.next_page(pages.next))
            return pages
        if missing.stop >= pages.total:
            return await self._load_end(request)
        if pages.ids and missing.start < pages.first <= missing.stop:
            return await self._load(request, pages.ids[0])
        if pages.ids and missing.start <= pages.end < missing.stop:
            return await self._load(request, pages.ids[-1])
        offset = min(missing.start, MAX_OFFSET)
        page = await self._read(request, offset=offset)
        return self._place(request, page, offset)

    async def _refresh(self, request: WindowRequest) -> _Pages:
        """Requests the rows around the cursor again, else those of the view."""
        started_at, self._is_outdated = monotonic(), False
        self._count.refresh()
        rows, pages = self._store.rows_in_view, self._pages
        anchor = self._store.anchor_id if self._store.anchor_id in pages.ids else None
        if anchor is None and rows.start > 0 and pages.ids:
            anchor = pages.ids[min(max(0, rows.start - pages.first), len(pages.ids) - 1)]
        try:
            loaded_pages = await self._load(request, anchor if rows.stop > PAGE_SIZE else None)
        except ClientError as error:
            self._is_outdated = True
            self._refresh_at = monotonic() + pause_after(started_at, error)
            raise
        self._refresh_at = monotonic() + pause_after(started_at)
        return loaded_pages

    async def _load(self, request: WindowRequest, anchor: str | None) -> _Pages:
        """The pages around an instance, else the first one."""
        if anchor is not None:
            with suppress(UnknownApplicationError):  # the instance has been erased
                page = await self._read(request, around=anchor, limit=2 * PAGE_SIZE)
                if anchor in _ids(page):
                    return self._place(request, page, page.rows_before or 0)
        return self._place(request, await self._read(request), 0)

    async def _load_end(self, request: WindowRequest) -> _Pages:
        """The last page."""
        page = await self._read(request, before="end")
        number = len(page.instances)
        total = max(self._last_total(request), number) if page.previous else number
        return _Pages(
            _ids(page), page.instances, total - number, total, page.previous, None, is_whole=not page.previous
        )

    def _place(self, request: WindowRequest, page: Page, first: int) -> _Pages:
        """The rows of a page, the first of which has this index."""
        end = first + len(page.instances)
        total = max(self._last_total(request), end) if page.next else end
        previous = page.previous if first else None
        return _Pages(_ids(page), page.instances, first, total, previous, page.next, is_whole=not (first or page.next))

    def _last_total(self, request: WindowRequest) -> int:
        """The number of rows, else that of the shown ones if they match the same conditions, else 0."""
        if self._count.number is not None:
            return self._count.number
        is_same = self._shown is not None and self._shown.conditions == request.conditions
        return self._pages.total if is_same else 0

    async def _read(self, request: WindowRequest, *, limit: int = PAGE_SIZE, **place: str | int) -> Page:
        return await self._rows.client.read_page(self._rows.slug, request.conditions, request.sorting, limit, **place)

    def _show(self, request: WindowRequest, pages: _Pages, *, is_other_list: bool = False) -> None:
        has_anchor = self._store.anchor_id in pages.ids
        self._shown, self._pages = request, pages
        if self._count.number is not None and pages.next:  # it may have arrived while the page was on its way
            pages.total = max(self._count.number, pages.end)
        released = self._store.show_window(
            *(pages.ids, pages.loaded, pages.first, pages.total), is_other_list=is_other_list and not has_anchor
        )
        self._store.is_counted = pages.is_whole or self._count.number is not None
        self._rows.release(released)
        self._rows.on_change()

    def _apply_count(self) -> None:
        """Shows the number of the rows that are shown, or that it is unknown."""
        pages = self._pages
        if self.is_shown and not pages.is_whole:
            if self._count.number is not None and pages.next:
                pages.total = max(self._count.number, pages.end)
                self._store.set_window_total(pages.total)
            self._store.is_counted = self._count.number is not None
        self._rows.on_change()


def _ids(page: Page) -> list[str]:
    return [instance.instance_id for instance in page.instances]
