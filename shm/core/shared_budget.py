"""A budget of bytes that addresses share, so that greedy ones leave room for others."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

PARTS = 3  # an address may have a third of what is free, so one alone has a quarter, and ten of them leave a quarter


class SharedBudget:
    """Bytes in use by address. `None` as the address is a proxy, whose clients are many: it has no share."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._total = 0
        self._used: Counter[bytes | None] = Counter()

    def is_exhausted_by(self, length: int) -> bool:
        """Whether so many bytes more are too many in all. A single use of any length is allowed."""
        return self._total > 0 and self._total + length > self._max_bytes

    def is_share_exhausted_by(self, address: bytes | None, length: int, *, is_first_free: bool = True) -> bool:
        """Whether so many bytes more are too many for the address. Its first use is allowed, if `is_first_free`."""
        of_address = 0 if address is None else self._used[address]
        if address is None or self._total == 0 or (is_first_free and of_address == 0):
            return False
        return (of_address + length) * PARTS > self._max_bytes - self._total

    @contextmanager
    def use(self, address: bytes | None, length: int) -> Iterator[None]:
        """While so many bytes are in use. The caller has asked before whether they may be."""
        self._used[address] += length
        self._total += length
        try:
            yield
        finally:
            self._total -= length
            self._used[address] -= length
            if not self._used[address]:
                del self._used[address]
