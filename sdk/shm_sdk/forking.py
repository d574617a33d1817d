"""Fork safety: one set of hooks for all clients, and the lock around the SDK's imports.

A thread that imports a module while another thread forks leaves the module's import lock held in the child for ever. So
the SDK imports under one lock of its own, which the hooks hold during a fork.
"""

import logging  # noqa: F401  # registers its own fork hooks first; in the reverse order both could wait for each other
import os
import threading
import weakref
from typing import Protocol

MAX_FORK_DELAY_S = 10.0  # an import that takes longer does not stop the host's fork any more

# Everything that a report uses, also what the standard library imports only when it is needed.
REPORTING_MODULES = (
    "contextvars",
    "json",
    "queue",
    "random",
    "re",
    "socket",
    "ssl",
    "traceback",
    "urllib.parse",
    "shm_sdk.signing",
    "shm_sdk.certificates",
    "shm_sdk.process_metrics",
    "shm_sdk.reporter",
)
OPTIONAL_MODULES = ("psutil",)


class ForkAware(Protocol):
    """An object with state that belongs to one process."""

    def after_fork(self) -> None:
        """Renews that state, in the child."""


class InterruptedImportError(Exception):
    """A signal handler needs an import while its thread is importing, which Python does not allow."""


class _ImportLock:
    """The lock around imports. A child gets a new one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._importer: int | None = None  # thread ID
        self._imported_with = self._lock  # the lock that the importer holds, which may be that of the parent process
        self._holds: list[bool] = []  # whether the fork in progress has acquired the lock

    def __enter__(self) -> None:
        if self._importer == threading.get_ident():
            raise InterruptedImportError
        lock = self._lock
        lock.acquire()
        self._importer, self._imported_with = threading.get_ident(), lock

    def __exit__(self, *_: object) -> None:
        self._importer = None
        self._imported_with.release()

    def before_fork(self) -> None:
        self._holds.append(self._lock.acquire(timeout=MAX_FORK_DELAY_S))

    def after_fork_in_parent(self) -> None:
        if self._holds and self._holds.pop():
            self._lock.release()

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        if self._importer != threading.get_ident():  # a signal handler may fork within an import, which then goes on
            self._importer = None
        self._holds = []


import_lock = _ImportLock()
_members: "weakref.WeakSet[ForkAware]" = weakref.WeakSet()


def register(member: ForkAware) -> None:
    """Calls `member.after_fork` in each forked child, as long as the member lives."""
    _members.add(member)


def load_reporting_modules() -> None:
    """Imports everything that a report uses, so that no import happens later in the reporting thread."""
    for name in (*OPTIONAL_MODULES, *REPORTING_MODULES):
        with import_lock:  # one at a time: a fork waits for one module only
            try:
                __import__(name)
            except ImportError:
                if name not in OPTIONAL_MODULES:
                    raise


def _after_fork_in_child() -> None:
    import_lock.after_fork_in_child()
    for member in list(_members):
        member.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=import_lock.before_fork,
        after_in_parent=import_lock.after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
