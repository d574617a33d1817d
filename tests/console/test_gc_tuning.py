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
