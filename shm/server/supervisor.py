"""Several worker processes of one server, and the parent process that starts, replaces and stops them.

The parent handles no requests. A forked worker makes its own loop, pools and listening socket. The parent replaces a
worker that dies. When the parent dies, each worker reads end-of-file from a pipe that only the parent held open, and
exits.
"""

import asyncio
import logging
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import NoReturn, TypeVar

from shm.core.errors import ConfigurationError, ShmError
from shm.core.signals import ignore_signals

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[int, int, Callable[[], None]], None]

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
HEARD = (*ENDING, signal.SIGCHLD)
LOOK_S = 1.0  # between two calls of `look`, by which the parent checks its other processes
PAUSE_S = (0.1, 5.0)  # the first and the longest pause before a replacement; doubled for each early death
EARLY_S = 10.0  # a worker that dies earlier failed at its start, and a replacement may fail too
MOST_EARLY = 5  # early deaths in a row, after which the server gives up
GRACE_S = 8.0  # after the drain, for closing pools; with the drain, below the 30 s of compose.yml
NOTE = struct.Struct("=i")  # a process ID; a pipe writes one as a whole or not at all


class Workers:
    """`number` processes that each run `work(which, orphaned, listening)`.

    `which` counts from 0; a replacement gets the number of the worker that it replaces. `orphaned` is a descriptor that
    becomes readable when the parent dies. The worker calls `listening` once it listens.
    """

    def __init__(self, number: int, work: Work, drain: timedelta) -> None:
        self._number = number
        self._work = work
        self._drain_s = drain.total_seconds()
        self._orphaned, self._alive = os.pipe()
        self._notes, self._noted = os.pipe()
        os.set_blocking(self._notes, False)
        os.set_blocking(self._noted, False)
        self._ended = False
        self._preparing: Callable[[], object] | None = None
        self._running: dict[int, float] = {}  # process ID -> its time of start
        self._which: dict[int, int] = {}  # process ID -> the worker's number
        self._missing = list(range(number))
        self._listening: set[int] = set()
        self._due: list[float] = []  # times at which replacements are started
        self._early = 0
        for each in HEARD:
            signal.signal(each, self._hear)

    def prepare(self, job: Coroutine[object, object, T]) -> T:
        """Runs a coroutine before the first worker starts. A signal cancels it and raises CancelledError."""

        async def cancellable() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None  # noqa: S101 - a running coroutine is in a task
            self._preparing = lambda: loop.call_soon_threadsafe(task.cancel)
            if self._ended:
                task.cancel()
            try:
                return await job
            finally:
                self._preparing = None

        return asyncio.run(cancellable())

    def run(self, look: Callable[[], None], all_listen: Callable[[], None]) -> None:
        """Runs the workers. Returns after a signal, when every worker has exited.

        Calls `look` every second, and `all_listen` once all workers listen. Raises ConfigurationError if workers die
        repeatedly just after their start.
        """
        self._due = [time.monotonic()] * self._number
        told = False
        try:
            while not self._ended:
                look()
                self._reap()
                self._replace()
                self._wait(LOOK_S)
                if not told and len(self._listening) == self._number:
                    told = True
                    all_listen()
        finally:
            self._end()

    def _hear(self, number: int, _: FrameType | None) -> None:
        """The signal handler. It passes a signal on to the workers at once, without waiting for the parent's loop."""
        if number != signal.SIGCHLD:
            self._ended = True
            if self._preparing is not None:
                self._preparing()
            self._tell(signal.SIGTERM)
        self._note(0)

    def _tell(self, number: int) -> None:
        for pid in self._running:
            with suppress(ProcessLookupError):  # `_reap` has just waited for it
                os.kill(pid, number)

    def _note(self, pid: int) -> None:
        with suppress(BlockingIOError):  # the pipe is full, so the parent wakes up anyway
            os.write(self._noted, NOTE.pack(pid))

    def _wait(self, longest_s: float) -> None:
        """Waits until a signal arrives, a worker listens or dies, or a replacement is due."""
        until_due = min((due - time.monotonic() for due in self._due), default=longest_s)
        if select.select([self._notes], [], [], max(0.0, min(longest_s, until_due)))[0]:
            for (pid,) in NOTE.iter_unpack(os.read(self._notes, NOTE.size * 1024)):
                if pid in self._running:
                    self._listening.add(pid)

    def _replace(self) -> None:
        now = time.monotonic()
        for due in [due for due in self._due if due <= now]:
            self._due.remove(due)
            self._start()

    def _start(self) -> None:
        """Forks a worker with signals blocked.

        A signal during the fork would miss the new worker, or the worker would pass it on.
        """
        which = self._missing.pop(0)
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_a_worker(which)
            self._running[pid] = time.monotonic()
            self._which[pid] = which
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        if self._ended:
            os.kill(pid, signal.SIGTERM)

    def _be_a_worker(self, which: int) -> NoReturn:
        """Runs the worker and exits by `os._exit`, because only the parent may run its own `finally` clauses."""
        status = 1
        try:
            for number in HEARD:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
            os.close(self._alive)
            self._work(which, self._orphaned, lambda: self._note(os.getpid()))
            status = 0
        except ShmError as error:
            logger.error("a worker cannot go on: %s", error)  # noqa: TRY400 - the message is sufficient
        except asyncio.CancelledError:
            status = 0  # a signal stopped it during its start
        except BaseException:
            logger.exception("a worker failed")
        finally:
            logging.shutdown()
            os._exit(status)

    def _reap(self) -> None:
        """Collects the exit status of dead workers and schedules their replacements."""
        for pid, started in list(self._running.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if not found:
                continue
            del self._running[pid]
            self._missing.append(self._which.pop(pid))
            self._listening.discard(pid)
            if self._ended:
                continue
            how = os.waitstatus_to_exitcode(status)
            now = time.monotonic()
            self._early = self._early + 1 if now - started < EARLY_S else 0
            if self._early >= MOST_EARLY:
                raise ConfigurationError(
                    f"{self._early} workers in a row ended within {EARLY_S:.0f} s of their start, the last one with "
                    f"{_said(how)}; the log says why."
                )
            first, longest = PAUSE_S
            pause = min(first * 2 ** max(0, self._early - 1), longest)
            logger.warning("a worker ended with %s and is replaced", _said(how))
            self._due.append(now + pause)

    def _end(self) -> None:
        """Terminates all workers, waits for their drain, and kills those that are still running."""
        self._ended = True
        self._tell(signal.SIGTERM)
        self._due.clear()
        deadline = time.monotonic() + self._drain_s + GRACE_S
        while self._running and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
            self._reap()
        if self._running:
            logger.warning("%d workers did not end in time and are killed", len(self._running))
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._running.clear()
        ignore_signals()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._orphaned, self._alive, self._notes, self._noted):
            os.close(descriptor)


@contextmanager
def reserved(sockets: list[socket.socket]) -> Iterator[int]:
    """Reserves the port of these sockets for workers that share it: sockets stay bound to it, without listening.

    The given sockets were bound without sharing, which detects another server on that port. They are closed, and
    shared sockets replace them.
    """
    port: int = sockets[0].getsockname()[1]
    with ExitStack() as kept:
        for listening in sockets:
            address = listening.getsockname()
            listening.close()
            shared = kept.enter_context(socket.socket(listening.family, socket.SOCK_STREAM))
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if shared.family == socket.AF_INET6:
                # As Tornado does: one socket for each family.
                shared.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                shared.bind(address)
            except OSError as error:
                raise ConfigurationError(f"Port {port} was taken in this moment: {error.strerror}.") from None
        yield port


def _said(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
