"""Answers that take reading a whole fleet: computed once for however many ask, one at a time, and kept for a while.

The longer one takes, the longer it is kept, so that at most a small share of PostgreSQL's time goes into them however
many ask; one of a small fleet is kept for no time that anybody would notice. Each says of which moment it is.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime
from typing import Any, TypeVar

T = TypeVar("T")

TTL_FACTOR = 20.0  # times as long as it took
MAX_TTL_S = 60.0  # after that it is computed anew, if somebody asks
MAX_ENTRIES = 64  # answers kept

AsOf = datetime


class SingleFlightCache:
    """The answers that one server process has computed."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, tuple[float, AsOf, Any]] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> tuple[AsOf, T]:
        """The answer of that key and its moment. What `compute` raises is raised."""
        found = self._fresh(key)
        if found is not None:
            return found
        async with self._one_at_a_time:
            found = self._fresh(key)  # whoever came first has computed it for all
            if found is not None:
                return found
            as_of, began = datetime.now(UTC), time.monotonic()
            answer = await compute()
            took = time.monotonic() - began
            self._known[key] = time.monotonic() + min(TTL_FACTOR * took, MAX_TTL_S), as_of, answer
            self._known.move_to_end(key)
            if len(self._known) > MAX_ENTRIES:
                self._known.popitem(last=False)
            return as_of, answer

    def _fresh(self, key: Hashable) -> tuple[AsOf, Any] | None:
        until, as_of, answer = self._known.get(key, (0.0, None, None))
        return None if as_of is None or until < time.monotonic() else (as_of, answer)
