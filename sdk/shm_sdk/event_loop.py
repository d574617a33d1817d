"""Hosts with an event loop: `async` providers run on it, and nothing blocks it.

asyncio is not imported here: a host with an event loop has imported it.
"""

import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

CO_COROUTINE = 0x80  # of `inspect`, whose import takes milliseconds

AsyncFunction = Callable[[], Coroutine[Any, Any, Mapping[str, object]]]


def running_loop() -> "AbstractEventLoop | None":
    """The event loop that runs in this thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        loop: AbstractEventLoop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop


def is_async(function: object) -> bool:
    """Whether it is an `async def`."""
    try:
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        return bool(getattr(code, "co_flags", 0) & CO_COROUTINE)
    except Exception:  # an object of the host that raises when it is read, such as a proxy outside its context
        return False


class AsyncProvider:
    """Calls an `async` provider from the reporting thread and waits for its metrics. The caller has a deadline."""

    def __init__(self, function: AsyncFunction, get_loop: "Callable[[], AbstractEventLoop | None]") -> None:
        self._function = function
        self._get_loop = get_loop
        self.__qualname__ = getattr(function, "__qualname__", type(function).__name__)

    def __call__(self) -> object:
        """The metrics; without a running loop the coroutine itself, which the caller rejects with a warning."""
        loop = self._get_loop()
        coroutine = self._function()
        if loop is None or not loop.is_running() or loop is running_loop():
            return coroutine
        future = sys.modules["asyncio"].run_coroutine_threadsafe(coroutine, loop)
        return future.result()
