"""Providers that are called in every process of an install, such as for the open connections of each.

Each process keeps the returned numbers beside its counters, and the sender adds them up.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

from shm_sdk.counters import PER_PROCESS, Counters, to_number
from shm_sdk.diagnostics import Notices
from shm_sdk.providers import Provider, ProviderRunner
from shm_sdk.snapshot import Json, sanitize

TIMEOUT_S = 10.0  # for all of them
NO_NUMBER = "it is not a number of the range that can be added up"


class ProcessMetrics:
    """The per-process providers of one client."""

    def __init__(self, counters: Counters, providers: Sequence[Provider]) -> None:
        """`providers` may grow later."""
        self._counters = counters
        self._runner = ProviderRunner()
        self._providers = providers
        self._notices = Notices()

    def collect(self) -> None:
        """Calls the providers, and keeps their numbers for the sender. Booleans count as 0 and 1."""
        for metrics in self._runner.collect(self._providers, time.monotonic() + TIMEOUT_S):
            sanitized = sanitize(metrics)
            for line in sanitized.dropped:
                self._notices.warn_left_out(line)
            for name, value in _flatten(sanitized.metrics):
                number = to_number(value) if isinstance(value, int | float) else None
                if number is None:
                    self._notices.warn_left_out(f"{name}: {NO_NUMBER}")
                else:
                    self._counters.change(name, PER_PROCESS, number)


def _flatten(metrics: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    """The values with their full names."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
