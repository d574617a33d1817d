"""Tuning of Python's cyclic garbage collector: a full collection of all that is imported pauses the console for 50 ms.

Almost all objects are freed by reference counting alone. What is left of a session whose application is no longer shown
is not, and may be 30 MiB: so full collections remain frequent, and are short.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_THRESHOLD = 2_000  # net new objects before a collection of the youngest generation, which takes less than 1 ms
OLDER_THRESHOLDS = (5, 3)  # collections of a generation before the next older one is collected too


@contextmanager
def only_imports() -> Iterator[None]:
    """Collects nothing within the context, and what it leaves is never searched: modules and classes are not freed."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(YOUNG_THRESHOLD, *OLDER_THRESHOLDS)
        gc.enable()
