"""The console's own errors. Errors of requests are in `shm_client.errors`.

ConsoleError
├── AddressError   the server's address is invalid
├── TokenError     there is no token, or an invalid one
├── ListError      the filter of `--once` is invalid, or the server does not evaluate it
├── ExportError    an export cannot be written, or is too long for the clipboard
└── NoDataError    the server sent no data for a screenshot
"""


class ConsoleError(Exception):
    """The base class. `str(error)` is one sentence that says how to correct the mistake."""


class AddressError(ConsoleError):
    """The server's address is invalid."""


class TokenError(ConsoleError):
    """There is no token, or an invalid one."""


class ListError(ConsoleError):
    """The filter of `--once` is invalid, or has terms that the server does not evaluate."""


class NoDataError(ConsoleError):
    """The server sent no data in time."""


class ExportError(ConsoleError):
    """An export cannot be written to its file, or is too long for the clipboard."""
