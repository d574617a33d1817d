"""The budget of all requests in memory, in bytes: heads until they are complete, bodies until they are answered.

Over the budget, the part that has been incomplete for the longest is refused: an honest one is complete within
milliseconds.
"""

from collections import OrderedDict
from typing import Protocol

from shm.core.errors import Overloaded, Refusal


class RequestPart(Protocol):
    """The head or the body of a request."""

    def refuse(self, refusal: Refusal) -> None:
        """Refuses the request, which is not complete, and frees its memory."""


class RequestMemory:
    """The budget of one process: `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._sizes: dict[RequestPart, int] = {}
        self._incomplete: OrderedDict[RequestPart, None] = OrderedDict()  # the oldest first

    @property
    def used_bytes(self) -> int:
        """The bytes of all requests in memory."""
        return self._used_bytes

    def add(self, part: RequestPart, length: int) -> None:
        """Counts a chunk of a part. May refuse requests, this one included."""
        self._sizes[part] = self._sizes.get(part, 0) + length
        self._used_bytes += length
        self._incomplete.setdefault(part)
        while self._used_bytes > self._max_bytes and self._incomplete:
            oldest, _ = self._incomplete.popitem(last=False)
            oldest.refuse(Overloaded("queue_full", "Too many requests are being received; try again shortly."))

    def complete(self, part: RequestPart) -> None:
        """The part is complete. It stays in memory while its request is handled."""
        self._incomplete.pop(part, None)

    def release(self, part: RequestPart) -> None:
        """The part is no longer in memory."""
        self._incomplete.pop(part, None)
        self._used_bytes -= self._sizes.pop(part, 0)
