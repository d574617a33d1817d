"""Shifts the clock of a Python process by TEST_CLOCK_SHIFT_S seconds, if its PYTHONPATH has this folder.

Only the administrator can set the clock of a machine, and tests need two clocks that differ. `datetime` is a type in C,
whose methods can be replaced in its own dictionary only.
"""

import ctypes
import datetime
import gc
import os
import time
from typing import Any

SHIFT_S = float(os.environ["TEST_CLOCK_SHIFT_S"])

_now, _time = datetime.datetime.now, time.time


def _shifted_now(_: type, tz: datetime.tzinfo | None = None) -> datetime.datetime:
    return _now(tz) + datetime.timedelta(seconds=SHIFT_S)


def _shifted_time() -> float:
    return _time() + SHIFT_S


attributes: Any = gc.get_referents(datetime.datetime.__dict__)[0]
attributes["now"] = classmethod(_shifted_now)
ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
time.time = _shifted_time
