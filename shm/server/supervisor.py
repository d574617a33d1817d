"""Several processes of one server: a parent that takes no requests keeps them running and tells them when to end.

A worker is forked with nothing open but what it inherits; it makes its own loop, pools and listening socket. One that
dies is replaced. When the parent dies, each worker reads the end of a pipe that only the parent held open, and ends.
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
LOOK_S = 1.0  # between two looks at what else the parent keeps alive
PAUSE_S = (0.1, 5.0)  # before a replacement; doubled for each worker that died early
EARLY_S = 10.0  # a worker that lived for less died of its start, or of what it finds wherever it starts
MOST_EARLY = 5  # in a row: then none will ever live
GRACE_S = 8.0  # beyond the drain, for pools to close; with the drain within the 30 s that compose.yml waits
NOTE = struct.Struct("=i")  # a process ID; pipes take one whole, or nothing


class Workers:
    """`number` processes that each run `work(which, orphaned, listening)`.

    `which` counts from 0; a replacement gets that of whom it replaces. `orphaned` is a descriptor that can be read when
    the parent has died; `listening` is to be called once it listens.
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
        self._running: dict[int, float] = {}  # process ID -> when it was started
        self._which: dict[int, int] = {}  # process ID -> which worker it is
        self._missing = list(range(number))
        self._listening: set[int] = set()
        self._due: list[float] = []  # when replacements are to be started
        self._early = 0
        for each in HEARD:
            signal.signal(each, self._hear)

    def prepare(self, job: Coroutine[object, object, T]) -> T:
        """Runs what comes before the first worker; a signal cancels it, and CancelledError comes out."""

        async def cancellable() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine that runs is in a task
            self._preparing = lambda: loop.call_soon_threadsafe(task.cancel)
            if self._ended:
                task.cancel()
            try:
                return await job
            finally:
                self._preparing = None

        return asyncio.run(cancellable())

    def run(self, look: Callable[[], None], all_listen: Callable[[], None]) -> None:
        """Returns when a signal has come and every worker has ended. Calls `look` every second, `all_listen` once.

        Raises ConfigurationError when workers die as soon as they are started.
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
        """A signal. Passed on at once, whatever the parent is doing."""
        if number != signal.SIGCHLD:
            self._ended = True
            if self._preparing is not None:
                self._preparing()
            self._tell(signal.SIGTERM)
        self._note(0)

    def _tell(self, number: int) -> None:
        for pid in self._running:
            with suppress(ProcessLookupError):  # `_reap` has waited for it in this moment
                os.kill(pid, number)

    def _note(self, pid: int) -> None:
        with suppress(BlockingIOError):  # so many notes that the parent will wake up anyway
            os.write(self._noted, NOTE.pack(pid))

    def _wait(self, longest_s: float) -> None:
        """Until there is something to do: a signal came, a worker listens or died, a replacement is due."""
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
        """Forks, with signals held back: one in between would miss the new worker, or be passed on by it."""
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
        """Ends without the parent's way out: its `finally` clauses are the parent's to run."""
        status = 1
        try:
            for number in HEARD:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
            os.close(self._alive)
            self._work(which, self._orphaned, lambda: self._note(os.getpid()))
            status = 0
        except ShmError as error:
            logger.error("a worker cannot go on: %s", error)  # noqa: TRY400 - its sentence says it all
        except asyncio.CancelledError:
            status = 0  # told to end while it was starting
        except BaseException:
            logger.exception("a worker failed")
        finally:
            logging.shutdown()
            os._exit(status)

    def _reap(self) -> None:
        """Waits for those that have died, and sees to their replacements."""
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
        """Tells all to end, waits for their drain, and kills what does not."""
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
    """The port of these sockets, kept for workers that share it: bound, and listened on by nobody yet.

    They were bound without sharing, which is how another server on that port is noticed; here they are let go.
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
                shared.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as Tornado binds: a socket for each
            try:
                shared.bind(address)
            except OSError as error:
                raise ConfigurationError(f"Port {port} was taken in this moment: {error.strerror}.") from None
        yield port


def _said(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
