"""Providers that are called in every process of an install, such as for the open connections of each.

Each process keeps the returned numbers beside its counters, and the sender adds them up.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

from shm_sdk.counters import PER_PROCESS, Counters
from shm_sdk.providers import Provider, ProviderRunner

TIMEOUT_S = 10.0  # for all of them
MAX_DEPTH = 8


class ProcessMetrics:
    """The per-process providers of one client."""

    def __init__(self, counters: Counters, providers: Sequence[Provider]) -> None:
        """`providers` may grow later."""
        self._counters = counters
        self._runner = ProviderRunner()
        self._providers = providers

    def collect(self) -> None:
        """Calls the providers, and keeps their numbers for the sender."""
        for metrics in self._runner.collect(self._providers, time.monotonic() + TIMEOUT_S):
            for name, number in _numbers(metrics):
                self._counters.change(name, PER_PROCESS, number)


def _numbers(metrics: Mapping[object, object], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, float]]:
    """The numbers of a mapping with their full names. Booleans count as 0 and 1; other values cannot be added up."""
    for name, value in metrics.items():
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _numbers(value, f"{prefix}{name}.", depth + 1)
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)
