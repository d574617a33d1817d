"""A window on a fleet that is larger than the store: the rows around the view, in the server's order and number.

The server sorts, filters and counts; the window has some pages of the result, and loads others when the view or the
cursor comes near its ends. While instances change, the pages around the cursor are requested again, at most every two
seconds and for a tenth of the time. Between two requests loaded rows change in place.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from shm_client import Client, ClientError, Instance, Page, UnknownApplicationError
from shm_tui.model.pacing import pause_after
from shm_tui.model.place_sort import column_sorting
from shm_tui.model.row_store import RowStore

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
    """Loaded rows that follow each other, the index of the first one, and the queries of the adjoining pages."""

    instances: list[Instance]
    first: int
    total: int
    previous: str | None
    next: str | None

    @property
    def end(self) -> int:
        """The index after the last row."""
        return self.first + len(self.instances)

    def prepend(self, page: Page) -> None:
        """Adds the page before, and drops rows at the end beyond MAX_WINDOW."""
        self.instances = [*page.instances, *self.instances]
        self.first = max(0, self.first - len(page.instances)) if page.previous else 0
        self.previous = page.previous
        if len(self.instances) > MAX_WINDOW:
            del self.instances[MAX_WINDOW:]
            self.next = None

    def append(self, page: Page) -> None:
        """Adds the page after, and drops rows at the beginning beyond MAX_WINDOW."""
        self.instances = [*self.instances, *page.instances]
        self.next = page.next
        surplus = len(self.instances) - MAX_WINDOW
        if surplus > 0:
            del self.instances[:surplus]
            self.first += surplus
            self.previous = None


class FleetWindow:
    """Keeps the window of a store up to date while it runs."""

    def __init__(
        self,
        client: Client,
        slug: str | None,
        store: RowStore,
        feed_ids: set[str],
        exceeds_store: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self._client, self._slug, self._store, self._feed_ids = client, slug, store, feed_ids
        self._exceeds_store, self._on_change = exceeds_store, on_change
        self._request: WindowRequest | None = None
        self._shown: WindowRequest | None = None  # the request whose rows the store has
        self._pages = _Pages([], 0, 0, None, None)
        self._wake = asyncio.Event()
        self._unreachable_rows: range | None = None  # the rows in view, if they could not be loaded
        self._is_outdated = False
        self._refresh_at = 0.0  # the monotonic time before which nothing is requested again
        store.on_view_moved = self._wake.set

    @property
    def is_shown(self) -> bool:
        """Whether the rows are those of the present filter and order, with their exact number."""
        return self._request is not None and self._shown == self._request

    @property
    def is_requested(self) -> bool:
        """Whether the server filters and sorts the rows."""
        return self._request is not None

    @property
    def is_unreachable(self) -> bool:
        """Whether the rows in view could not be loaded: a jump far into a fleet with more than MAX_OFFSET rows."""
        return self._request is not None and self._store.rows_in_view == self._unreachable_rows

    def sync(self) -> None:
        """Follows the filter and the order of the store. Call it after a change of one of them."""
        request = self._wanted_request()
        if request != self._request:
            self._request = request
            self._wake.set()
        if request is None and self._shown is not None:
            self._shown = None
            self._release(self._store.leave_window())

    def mark_outdated(self) -> None:
        """An instance changed: order and number may have changed too."""
        if not self._is_outdated:
            self._is_outdated = True
            self._wake.set()

    async def run(self) -> None:
        """Requests pages until it is cancelled."""
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
        if not self._exceeds_store() or sorting is None or not is_evaluated:
            return None
        return WindowRequest(store.filter.server_filter.conditions, sorting)

    async def _step(self) -> bool:
        """Requests what is missing. Returns whether there may be more to do at once."""
        request = self._request
        if request is None:
            return False
        if request != self._shown:
            pages = await self._load(request, self._store.anchor_id)
        elif (missing := self._missing()) is not None:
            pages = await self._load_missing(request, missing)
            if request == self._request:
                self._show(request, pages)
                if self._missing() == missing:
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
        start, stop = max(0, rows.start - PREFETCH_MARGIN), min(rows.stop + PREFETCH_MARGIN, pages.total)
        if start >= stop or rows == self._unreachable_rows or (pages.first <= start and stop <= pages.end):
            return None
        return range(start, stop)

    async def _load_missing(self, request: WindowRequest, missing: range) -> _Pages:
        """Loads these rows: the adjoining page, or a page elsewhere after a jump."""
        pages = self._pages
        if missing.start < pages.first <= missing.stop and pages.previous is not None:
            pages.prepend(await self._client.next_page(pages.previous))
            return pages
        if missing.start <= pages.end < missing.stop and pages.next is not None:
            pages.append(await self._client.next_page(pages.next))
            return pages
        if missing.stop >= pages.total:
            return await self._load_end(request)
        if pages.instances and missing.start < pages.first <= missing.stop:
            return await self._load(request, pages.instances[0].instance_id)
        if pages.instances and missing.start <= pages.end < missing.stop:
            return await self._load(request, pages.instances[-1].instance_id)
        offset = min(missing.start, MAX_OFFSET)
        page, total = await asyncio.gather(self._read(request, offset=offset), self._count(request))
        return _Pages(page.instances, offset, max(total, offset + len(page.instances)), None, page.next)

    async def _refresh(self, request: WindowRequest) -> _Pages:
        """Requests the rows around the cursor again, else those of the view."""
        started_at, self._is_outdated = monotonic(), False
        rows, pages = self._store.rows_in_view, self._pages
        loaded = {instance.instance_id for instance in pages.instances}
        anchor = self._store.anchor_id if self._store.anchor_id in loaded else None
        if anchor is None and rows.start > 0 and pages.instances:
            anchor = pages.instances[min(max(0, rows.start - pages.first), len(pages.instances) - 1)].instance_id
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
                page, total = await asyncio.gather(
                    self._read(request, around=anchor, limit=2 * PAGE_SIZE), self._count(request)
                )
                if any(instance.instance_id == anchor for instance in page.instances):
                    first = page.rows_before or 0
                    end = first + len(page.instances)
                    return _Pages(page.instances, first, max(total, end), page.previous, page.next)
        page, total = await asyncio.gather(self._read(request), self._count(request))
        number = len(page.instances)
        return _Pages(page.instances, 0, max(total, number) if page.next else number, None, page.next)

    async def _load_end(self, request: WindowRequest) -> _Pages:
        """The last page."""
        page, total = await asyncio.gather(self._read(request, before="end"), self._count(request))
        number = len(page.instances)
        total = max(total, number) if page.previous else number
        return _Pages(page.instances, total - number, total, page.previous, None)

    async def _read(self, request: WindowRequest, *, limit: int = PAGE_SIZE, **place: str | int) -> Page:
        return await self._client.read_page(self._slug, request.conditions, request.sorting, limit, **place)

    async def _count(self, request: WindowRequest) -> int:
        return await self._client.count_instances(self._slug, request.conditions)

    def _show(self, request: WindowRequest, pages: _Pages, *, is_other_list: bool = False) -> None:
        has_anchor = any(instance.instance_id == self._store.anchor_id for instance in pages.instances)
        self._shown, self._pages = request, pages
        released = self._store.show_window(
            pages.instances, pages.first, pages.total, is_other_list=is_other_list and not has_anchor
        )
        self._release(released)
        self._on_change()

    def _release(self, instance_ids: set[str]) -> None:
        """Removes rows that left the window, unless the feed keeps them up to date."""
        for instance_id in instance_ids - self._feed_ids:
            self._store.remove(instance_id)
