"""What is kept only for a time: pending instances that never proved their key, and the feed's removals.

Every server process does this. Each step is one short statement under the writers' lock, and finds nothing to do where
another process has just done it.
"""

import asyncio
import logging

from shm.errors import DatabaseUnavailable
from shm.feed import Feed
from shm.registry import Registry

logger = logging.getLogger(__name__)

MOST_STEPS = 100  # of a thousand each: more than a minute brings in
ROUND_S = 60.0  # what is kept for a day may be kept a minute longer
PAUSE_S = 0.2  # between two steps of a round, which the intake has for itself


async def run(registry: Registry, feed: Feed) -> None:
    """Goes round until cancelled."""
    while True:
        try:
            for _ in range(MOST_STEPS):
                if not (await registry.purge() or await feed.forget_removals()):
                    break
                await asyncio.sleep(PAUSE_S)
        except DatabaseUnavailable as error:
            logger.warning("could not purge, next try in %.0f s (%s)", ROUND_S, type(error).__name__)
        except Exception:  # such as a right that is missing: no reason to take nothing in
            logger.exception("could not purge, next try in %.0f s", ROUND_S)
        await asyncio.sleep(ROUND_S)
