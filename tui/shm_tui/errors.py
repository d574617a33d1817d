"""The console's own errors. Errors of requests are in `shm_client.errors`.

ConsoleError
├── AddressError   the server's address is invalid
├── TokenError     the token is invalid, or cannot be read
│   ├── MissingTokenError   there is no token
│   └── KeyringError        the user's keyring cannot be used
├── ConfigError    the configuration file is invalid, or cannot be read or written
├── ListError      an option of `--once` is invalid, or names what the server does not have
├── ExportError    an export cannot be written, or is too long for the clipboard
└── NoDataError    the server has no data for a screenshot or a view
"""


class ConsoleError(Exception):
    """The base class. `str(error)` is one sentence that says how to correct the mistake."""


class AddressError(ConsoleError):
    """The server's address is invalid."""


class TokenError(ConsoleError):
    """The token is invalid, or cannot be read."""


class MissingTokenError(TokenError):
    """There is no token. A console in a terminal asks for it."""


class KeyringError(TokenError):
    """The user's keyring cannot be used, or does not answer."""


class ConfigError(ConsoleError):
    """The configuration file is invalid, or cannot be read or written. The message names the file and the key."""


class ListError(ConsoleError):
    """An option of `--once` is invalid, names what the server does not have, or asks for what it does not evaluate."""


class NoDataError(ConsoleError):
    """The server sent no data in time, or has none yet."""


class ExportError(ConsoleError):
    """An export cannot be written to its file, or is too long for the clipboard."""
