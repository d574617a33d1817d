"""A bounded queue in which keys take turns: a key with many items delays its own items and nobody else's."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by key. `take` returns an item of each key in turn, and the items of one key in their order."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._by_key: dict[str, deque[T]] = {}  # in the order of the next turn; a key without items has no entry
        self._size = 0
        self._not_empty = asyncio.Event()

    def __len__(self) -> int:
        return self._size

    @property
    def key_count(self) -> int:
        """The number of keys with items. As many items that are taken next have distinct keys."""
        return len(self._by_key)

    def put(self, key: str, item: T) -> None:
        """Appends an item. Raises asyncio.QueueFull."""
        if self._size >= self._max_size:
            raise asyncio.QueueFull
        self._by_key.setdefault(key, deque()).append(item)
        self._size += 1
        self._not_empty.set()

    async def wait(self) -> None:
        """Returns once the queue has an item."""
        await self._not_empty.wait()

    def take(self) -> T:
        """Removes the next item. Raises StopIteration for an empty queue."""
        key = next(iter(self._by_key))
        items = self._by_key.pop(key)
        item = items.popleft()
        if items:
            self._by_key[key] = items  # its next turn is after those of all others
        self._size -= 1
        if not self._size:
            self._not_empty.clear()
        return item
