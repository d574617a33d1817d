"""A function of a bench in a process of its own, with a pipe to it."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from bench.support.errors import InvalidRun

END_TIMEOUT_S = 5


class ChildProcess:
    """A child process and its pipe."""

    def __init__(self, pipe: Connection, pid: int) -> None:
        self._pipe = pipe
        self.pid = pid

    def send(self, message: object) -> None:
        """Sends it a message."""
        self._pipe.send(message)

    def receive(self, timeout_s: float) -> Any:
        """Its next message. Raises InvalidRun if none arrives in time, or if it ended."""
        try:
            if self._pipe.poll(timeout_s):
                return self._pipe.recv()
        except EOFError:
            raise InvalidRun("A process of the bench ended early; its output is above.") from None
        raise InvalidRun(f"A process of the bench sent nothing for {timeout_s:.0f} s.")


@contextmanager
def run_child(work: Callable[..., None], *arguments: object) -> Iterator[ChildProcess]:
    """Calls `work` with a pipe and these arguments in another process, which ends with the context."""
    spawn = multiprocessing.get_context("spawn")
    parent_end, child_end = spawn.Pipe()
    process = spawn.Process(target=work, args=(child_end, *arguments), daemon=True)
    process.start()
    child_end.close()
    assert process.pid is not None
    try:
        yield ChildProcess(parent_end, process.pid)
    finally:
        process.terminate()
        process.join(END_TIMEOUT_S)
