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
from shm.core.logs import RateLimitedLogger
from shm.core.signals import ignore_signals, stop_signals

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

T = TypeVar("T")
Work = Callable[[int, int, Callable[[], None]], None]

CHECK_INTERVAL_S = 1.0  # between two calls of `check`, by which the parent checks its other processes
RESTART_DELAY_S = (0.1, 5.0)  # the first and the longest pause before a replacement; doubled for each early death
EARLY_DEATH_S = 10.0  # a worker that dies earlier failed at its start, and a replacement may fail too
MAX_EARLY_DEATHS = 5  # consecutive early deaths, after which the server ends
CLOSE_TIMEOUT_S = 8.0  # after the drain, for closing pools; with the drain, below the 30 s of compose.yml
PID_FORMAT = struct.Struct("=i")  # a process ID; a pipe writes one as a whole or not at all


class Workers:
    """`number` processes that each run `work(worker_number, orphaned, listening)`.

    `worker_number` counts from 0; a replacement gets the number of the worker that it replaces. `orphaned` is a
    descriptor that becomes readable when the parent dies. The worker calls `listening` once it listens.
    """

    def __init__(self, number: int, work: Work, drain: timedelta) -> None:
        self._number = number
        self._work = work
        self._drain_s = drain.total_seconds()
        self._parent_pipe_read, self._parent_pipe_write = os.pipe()
        self._wakeups_read, self._wakeups_write = os.pipe()
        os.set_blocking(self._wakeups_read, False)
        os.set_blocking(self._wakeups_write, False)
        self._is_stopping = False
        self._preparing: Callable[[], object] | None = None
        self._running: dict[int, float] = {}  # process ID -> its time of start
        self._worker_numbers: dict[int, int] = {}  # process ID -> the worker's number
        self._free_numbers = list(range(number))
        self._listening: set[int] = set()
        self._restart_times: list[float] = []  # times at which replacements are started
        self._early_deaths = 0
        self._handled_signals = (*stop_signals(), signal.SIGCHLD)
        for signal_number in self._handled_signals:
            signal.signal(signal_number, self._on_signal)

    def prepare(self, job: Coroutine[object, object, T]) -> T:
        """Runs a coroutine before the first worker starts. A signal cancels it and raises CancelledError."""

        async def cancellable() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None  # noqa: S101 - a running coroutine is in a task
            self._preparing = lambda: loop.call_soon_threadsafe(task.cancel)
            if self._is_stopping:
                task.cancel()
            try:
                return await job
            finally:
                self._preparing = None

        return asyncio.run(cancellable())

    def run(self, check: Callable[[], None], on_all_listening: Callable[[], None]) -> None:
        """Runs the workers. Returns after a signal, when every worker has exited.

        Calls `check` every second, and `on_all_listening` once all workers listen. Raises ConfigurationError if workers
        die repeatedly just after their start.
        """
        self._restart_times = [time.monotonic()] * self._number
        is_reported = False
        try:
            while not self._is_stopping:
                check()
                self._reap()
                self._replace()
                self._wait(CHECK_INTERVAL_S)
                if not is_reported and len(self._listening) == self._number:
                    is_reported = True
                    on_all_listening()
        finally:
            self._stop()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """The signal handler. It passes a signal on to the workers at once, without waiting for the parent's loop."""
        if number != signal.SIGCHLD:
            self._is_stopping = True
            if self._preparing is not None:
                self._preparing()
            self._signal_workers(signal.SIGTERM)
        self._wake_parent(0)

    def _signal_workers(self, number: int) -> None:
        for pid in self._running:
            with suppress(ProcessLookupError):  # `_reap` has just waited for it
                os.kill(pid, number)

    def _wake_parent(self, pid: int) -> None:
        with suppress(BlockingIOError):  # the pipe is full, so the parent wakes up anyway
            os.write(self._wakeups_write, PID_FORMAT.pack(pid))

    def _wait(self, longest_s: float) -> None:
        """Waits until a signal arrives, a worker listens or dies, or a replacement is due."""
        until_restart_s = min((restart_at - time.monotonic() for restart_at in self._restart_times), default=longest_s)
        if select.select([self._wakeups_read], [], [], max(0.0, min(longest_s, until_restart_s)))[0]:
            for (pid,) in PID_FORMAT.iter_unpack(os.read(self._wakeups_read, PID_FORMAT.size * 1024)):
                if pid in self._running:
                    self._listening.add(pid)

    def _replace(self) -> None:
        now = time.monotonic()
        for restart_at in [restart_at for restart_at in self._restart_times if restart_at <= now]:
            self._restart_times.remove(restart_at)
            self._start()

    def _start(self) -> None:
        """Forks a worker with signals blocked.

        A signal during the fork would miss the new worker, or the worker would pass it on.
        """
        worker_number = self._free_numbers.pop(0)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._handled_signals)
        try:
            pid = os.fork()
            if pid == 0:
                self._run_worker(worker_number)
            self._running[pid] = time.monotonic()
            self._worker_numbers[pid] = worker_number
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handled_signals)
        if self._is_stopping:
            os.kill(pid, signal.SIGTERM)

    def _run_worker(self, worker_number: int) -> NoReturn:
        """Runs the worker and exits by `os._exit`, because only the parent may run its own `finally` clauses."""
        status = 1
        try:
            for number in self._handled_signals:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handled_signals)
            os.close(self._parent_pipe_write)
            self._work(worker_number, self._parent_pipe_read, lambda: self._wake_parent(os.getpid()))
            status = 0
        except ShmError as error:
            logger.error("a worker cannot continue: %s", error)  # noqa: TRY400 - the message is sufficient
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
            exited, status = os.waitpid(pid, os.WNOHANG)
            if not exited:
                continue
            del self._running[pid]
            self._free_numbers.append(self._worker_numbers.pop(pid))
            self._listening.discard(pid)
            if self._is_stopping:
                continue
            exit_code = os.waitstatus_to_exitcode(status)
            now = time.monotonic()
            self._early_deaths = self._early_deaths + 1 if now - started < EARLY_DEATH_S else 0
            if self._early_deaths >= MAX_EARLY_DEATHS:
                raise ConfigurationError(
                    f"{self._early_deaths} consecutive workers ended within {EARLY_DEATH_S:.0f} s of their start, the "
                    f"last one with {_describe_exit(exit_code)}; the log has the reason."
                )
            shortest_s, longest_s = RESTART_DELAY_S
            delay_s = min(shortest_s * 2 ** max(0, self._early_deaths - 1), longest_s)
            rate_limited.warning("a worker ended and is replaced", _describe_exit(exit_code))
            self._restart_times.append(now + delay_s)

    def _stop(self) -> None:
        """Terminates all workers, waits for their drain, and kills those that are still running."""
        self._is_stopping = True
        self._signal_workers(signal.SIGTERM)
        self._restart_times.clear()
        deadline = time.monotonic() + self._drain_s + CLOSE_TIMEOUT_S
        while self._running and (remaining_s := deadline - time.monotonic()) > 0:
            self._wait(remaining_s)
            self._reap()
        if self._running:
            logger.warning("%d workers did not end in time and are killed", len(self._running))
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._running.clear()
        ignore_signals()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._parent_pipe_read, self._parent_pipe_write, self._wakeups_read, self._wakeups_write):
            os.close(descriptor)


@contextmanager
def reserve_port(sockets: list[socket.socket]) -> Iterator[int]:
    """Reserves the port of these sockets for workers that share it: sockets stay bound to it, without listening.

    The given sockets were bound without sharing, which detects another server on that port. They are closed, and
    shared sockets replace them.
    """
    port: int = sockets[0].getsockname()[1]
    with ExitStack() as stack:
        for listening in sockets:
            address = listening.getsockname()
            listening.close()
            shared = stack.enter_context(socket.socket(listening.family, socket.SOCK_STREAM))
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if shared.family == socket.AF_INET6:
                # As Tornado does: one socket for each family.
                shared.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                shared.bind(address)
            except OSError as error:
                raise ConfigurationError(f"Another process has just bound port {port}: {error.strerror}.") from None
        yield port


def _describe_exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
