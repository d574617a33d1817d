"""The SHM client for applications that other people host.

It sends a small signed snapshot of aggregate counters every hour. It raises no exception into its host, never blocks
it, and does nothing where telemetry is turned off.
"""

from shm_sdk.version import __version__

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than all of this package until a Client is created
if TYPE_CHECKING:
    from shm_sdk.client import Client
    from shm_sdk.configuration import ConfigurationError
    from shm_sdk.consent import ConsentRequest
    from shm_sdk.outcome import Outcome, Result

__all__ = ["Client", "ConfigurationError", "ConsentRequest", "Outcome", "Result", "__version__"]

_MODULES = {
    "Client": "client",
    "ConfigurationError": "configuration",
    "ConsentRequest": "consent",
    "Outcome": "outcome",
    "Result": "outcome",
}


def __getattr__(name: str) -> object:
    """Imports a name on its first use, which keeps `import shm_sdk` fast."""
    if name in _MODULES:
        from importlib import import_module

        value = getattr(import_module(f"shm_sdk.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
