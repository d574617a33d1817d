"""Python's cyclic collector stops everything while it looks: it looks seldom, and not at what stays for good.

With a thousand subscribers a look at all objects takes a tenth of a second, and there would be one every few seconds.
Nearly everything here ends without it; what does not, waits as one of some thousands.
"""

import gc

YOUNG_THRESHOLD = 20_000  # objects more than before: some MiB at most
OLDER_THRESHOLDS = (10, 5)  # such looks, until those that outlived one are looked at again, and those that outlived two


def tune_gc() -> None:
    """For a server process that has loaded what it needs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_THRESHOLD, *OLDER_THRESHOLDS)
