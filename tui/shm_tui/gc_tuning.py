"""Tuning of Python's cyclic garbage collector: a full collection of all that is imported pauses the console for 50 ms.

Almost all objects are freed by reference counting alone, and the start makes hardly any garbage.
"""

import asyncio
import gc

START_S = 10.0  # until modules, widgets and the first pages of rows are there
YOUNG_THRESHOLD = 5_000  # net new objects before a collection of the youngest generation, which takes a millisecond
OLDER_THRESHOLDS = (10, 10)  # collections of a generation before the next older one is collected too


def postpone_collections() -> None:
    """Collects nothing from now on. Call `resume_collections` in the loop."""
    gc.disable()


def resume_collections(loop: asyncio.AbstractEventLoop) -> None:
    """Collects again in some seconds, but none of the objects that exist by then."""
    loop.call_later(START_S, _freeze)


def _freeze() -> None:
    gc.freeze()
    gc.set_threshold(YOUNG_THRESHOLD, *OLDER_THRESHOLDS)
    gc.enable()
