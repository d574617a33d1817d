"""The garbage collector of a console's process."""

import subprocess
import sys

PROGRAM = """
import asyncio, gc
from shm_tui import gc_tuning
gc_tuning.START_S = 0.0
gc_tuning.postpone_collections()
print(gc.isenabled(), gc.get_freeze_count())
async def run():
    gc_tuning.resume_collections(asyncio.get_running_loop())
    await asyncio.sleep(0.01)
asyncio.run(run())
print(gc.isenabled(), gc.get_freeze_count() > 1_000)
"""


def test_the_start_collects_nothing_and_what_it_made_is_never_searched() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0", "True", "True"]
