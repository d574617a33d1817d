"""Starts reporting in uWSGI's workers, and not in its master.

uWSGI loads the application in the master and forks. A thread of the master that waits for the interpreter lock at that
moment leaves the lock's state so that the worker may wait for ever.
"""

import sys
from collections.abc import Callable
from importlib import import_module


def defer_to_workers(start: Callable[[], None]) -> bool:
    """In uWSGI's master, has uWSGI call `start` in each worker after the fork. Returns whether it does."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None or getattr(uwsgi, "worker_id", lambda: 1)() != 0:  # a module of that name may be a stand-in
        return False
    try:
        import_module("uwsgidecorators").postfork_chain.append(start)
    except Exception:  # it is missing, or refuses to be imported: without a master process
        previous = getattr(uwsgi, "post_fork_hook", None)

        def run_hooks() -> None:
            if previous is not None:
                previous()
            start()

        uwsgi.post_fork_hook = run_hooks  # type: ignore[attr-defined]
    return True
