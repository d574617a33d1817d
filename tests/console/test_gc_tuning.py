"""The garbage collector of a console's process."""

import subprocess
import sys

PROGRAM = """
import gc
from shm_tui.gc_tuning import only_imports
with only_imports():
    print(gc.isenabled(), gc.get_freeze_count())
    import decimal, html.parser
print(gc.isenabled(), gc.get_freeze_count() > 1_000, gc.get_count()[0] < 1_000)
"""


def test_imports_are_never_searched_for_garbage_and_the_rest_is() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0", "True", "True", "True"]


SCREEN = """
import asyncio, gc
from shm_tui import gc_tuning
gc_tuning.SCREEN_DELAY_S = 0.0
kept = [[] for _ in range(5_000)]
async def run():
    has_data = asyncio.Event()
    keeping = asyncio.create_task(gc_tuning.keep_screen(has_data))
    await asyncio.sleep(0)
    print(gc.get_freeze_count(), end=" ")
    has_data.set()
    await keeping
    print(gc.get_freeze_count() > 5_000, gc.isenabled())
asyncio.run(run())
"""


def test_the_first_screen_is_not_searched_for_garbage_once_it_has_data() -> None:
    done = subprocess.run([sys.executable, "-c", SCREEN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "True"]
