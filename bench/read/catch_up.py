"""Runs the rollup until it has caught up, without the pauses of a server between its steps.

`python -m bench.read.catch_up DSN`: prints the seconds that this took and the longest step, as JSON.
"""

import asyncio
import json
import sys
import time

from shm.analytics.rollup import Rollup
from shm.core.settings import Settings
from shm.db.database import Database


async def _catch_up(dsn: str) -> dict[str, float]:
    async with Database.connect(Settings(), dsn, size=1) as database:
        started = previous = time.monotonic()
        longest, is_behind, rollup = 0.0, True, Rollup(database)
        while is_behind:
            is_behind = await rollup.roll_up()
            now = time.monotonic()
            longest, previous = max(longest, now - previous), now
        return {"seconds": previous - started, "longest": longest}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_catch_up(sys.argv[1]))))
