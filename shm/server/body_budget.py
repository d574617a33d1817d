"""One budget for the bytes of all requests in memory: heads until they are complete, bodies until they are answered.

Over the budget, the part that has been incomplete for the longest is refused: an honest one is complete within
milliseconds.
"""

from collections import OrderedDict
from typing import Protocol

from shm.core.errors import Overloaded, Refusal


class Body(Protocol):
    """The body of a request, or its head."""

    def refuse(self, refusal: Refusal) -> None:
        """Refuses the request, which is not complete, and frees its memory."""


class BodyBudget:
    """The budget of one process: `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._sizes: dict[Body, int] = {}
        self._incomplete: OrderedDict[Body, None] = OrderedDict()  # the oldest first

    @property
    def used_bytes(self) -> int:
        """The bytes of all requests in memory."""
        return self._used_bytes

    def add(self, body: Body, length: int) -> None:
        """Counts a chunk of a body. May refuse bodies, this one included."""
        self._sizes[body] = self._sizes.get(body, 0) + length
        self._used_bytes += length
        self._incomplete.setdefault(body)
        while self._used_bytes > self._max_bytes and self._incomplete:
            oldest, _ = self._incomplete.popitem(last=False)
            oldest.refuse(Overloaded("queue_full", "Too many requests are being received; try again shortly."))

    def complete(self, body: Body) -> None:
        """The body is complete. It stays in memory while its request is handled."""
        self._incomplete.pop(body, None)

    def release(self, body: Body) -> None:
        """The body is no longer in memory."""
        self._incomplete.pop(body, None)
        self._used_bytes -= self._sizes.pop(body, 0)
