"""Rolls up whatever is stored and not yet rolled up, without the rests that a server takes in between.

`python -m bench.read.catch_up DSN`: prints how many seconds that took, and the longest step of it, as JSON.
"""

import asyncio
import json
import sys
import time

from shm.database import Database
from shm.rollup import Rollup
from shm.settings import Settings


async def _catch_up(dsn: str) -> dict[str, float]:
    async with Database.opened(Settings(), dsn, size=1) as database:
        began = before = time.monotonic()
        longest, more, rollup = 0.0, True, Rollup(database)
        while more:
            more = await rollup.roll()
            now = time.monotonic()
            longest, before = max(longest, now - before), now
        return {"seconds": before - began, "longest": longest}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_catch_up(sys.argv[1]))))
