"""Tuning of Python's cyclic garbage collector for a server process.

A collection pauses the process. With a thousand subscribers a full collection takes a tenth of a second, and the
default thresholds run one every few seconds. Almost all objects are freed by reference counting alone; the rest waits
for the collector, some thousands of objects at a time.
"""

import gc

YOUNG_THRESHOLD = 20_000  # net new objects before a collection of the youngest generation; some MiB at most
OLDER_THRESHOLDS = (10, 5)  # collections of a generation before the next older one is collected too


def tune_gc() -> None:
    """Freezes all present objects and raises the thresholds. Call it once the process has loaded its modules."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_THRESHOLD, *OLDER_THRESHOLDS)
