"""The SHM client for applications that other people host.

It sends a small signed snapshot of aggregate counters every hour. It raises no exception into its host, never blocks
it, and does nothing where telemetry is turned off.
"""

from typing import TYPE_CHECKING

from shm_sdk.client import Client
from shm_sdk.version import __version__

if TYPE_CHECKING:
    from shm_sdk.outcome import Outcome, Result

__all__ = ["Client", "Outcome", "Result", "__version__"]


def __getattr__(name: str) -> object:
    """Imports rarely needed names on first use, which keeps `import shm_sdk` fast."""
    if name in ("Outcome", "Result"):
        from shm_sdk import outcome

        return getattr(outcome, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
