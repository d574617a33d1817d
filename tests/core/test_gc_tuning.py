"""What ends here ends by itself, and not only when Python's collector of circles comes, which is seldom."""

import gc

import aiopg

from shm.core.settings import Settings
from shm.db.database import Database
from shm.feed.changes import read_head

TIMES = 20


async def test_a_statement_leaves_no_cursor_behind(database: str) -> None:
    async with Database.connect(Settings(), database, 1) as opened:
        await read_head(opened)
        gc.collect()
        gc.disable()
        try:
            for _ in range(TIMES):
                await read_head(opened)
            left = [each for each in gc.get_objects() if type(each) is aiopg.Cursor]
        finally:
            gc.enable()
    assert left == []
