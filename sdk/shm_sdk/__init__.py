"""The SHM client for applications that other people host.

It sends a small signed snapshot of aggregate counters every hour. It raises no exception into its host, never blocks
it, and does nothing where telemetry is turned off.
"""

from typing import TYPE_CHECKING

from shm_sdk.client import Client
from shm_sdk.outcome import Outcome, Result
from shm_sdk.version import __version__

if TYPE_CHECKING:
    from shm_sdk.configuration import ConfigurationError
    from shm_sdk.permission import ConsentRequest

__all__ = ["Client", "ConfigurationError", "ConsentRequest", "Outcome", "Result", "__version__"]

_MODULES = {
    "ConfigurationError": "configuration",
    "ConsentRequest": "permission",
}


def __getattr__(name: str) -> object:
    """Imports rarely needed names on first use, which keeps `import shm_sdk` fast."""
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"shm_sdk.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
