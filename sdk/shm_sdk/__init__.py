"""SHM: the client that lives inside the applications that others host.

It sends a small signed snapshot of aggregate counters every hour, never raises into its host, never holds it up, and
does nothing at all where telemetry is refused.
"""

from typing import TYPE_CHECKING

from shm_sdk.client import Client
from shm_sdk.version import __version__

if TYPE_CHECKING:
    from shm_sdk.outcome import Outcome, Result

__all__ = ["Client", "Outcome", "Result", "__version__"]


def __getattr__(name: str) -> object:
    """Loads the names that few hosts need when one asks for them, so that the import stays cheap for all."""
    if name in ("Outcome", "Result"):
        from shm_sdk import outcome

        return getattr(outcome, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
