"""Tuning of Python's cyclic garbage collector: a full collection of all that is imported pauses the console for 50 ms.

One of the widgets of the first screen takes another 20 ms. Both stay as long as the console, so they are not searched.
Full collections of the rest remain frequent, and are short.
"""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_THRESHOLD = 2_000  # net new objects before a collection of the youngest generation, which takes less than 1 ms
SCREEN_DELAY_S = 1.0  # from the first data: the user may type a key as soon as they are there
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


async def keep_screen(has_data: asyncio.Event) -> None:
    """Once the first data are on the screen, collects the garbage of the start, and never searches the rest again."""
    await has_data.wait()
    await asyncio.sleep(SCREEN_DELAY_S)
    gc.collect()
    gc.freeze()
