"""Objects are freed by reference counting, because the tuned garbage collector runs rarely."""

import gc

import aiopg

from shm.core.settings import Settings
from shm.db.database import Database
from shm.feed.changes import read_head

STATEMENTS = 20


async def test_a_statement_leaves_no_cursor_in_a_reference_cycle(database: str) -> None:
    async with Database.connect(Settings(), database, 1) as pool:
        await read_head(pool)
        gc.collect()
        gc.disable()
        try:
            for _ in range(STATEMENTS):
                await read_head(pool)
            cursors = [item for item in gc.get_objects() if type(item) is aiopg.Cursor]
        finally:
            gc.enable()
    assert cursors == []
