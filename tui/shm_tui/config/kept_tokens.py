"""The tokens that the user has typed and asked to keep: a file of its own, for its user only.

Of a token in the user's keyring, the file has a marker.
"""

import os
from pathlib import Path

import msgspec
import platformdirs

from shm_tui.config.storage import exclusive, write_private
from shm_tui.errors import ConfigError, TokenError

TOKENS_FILE = "console-tokens.json"
MAX_TOKENS_BYTES = 256 * 1024  # of a file with a line for each server
GROUP_AND_OTHERS = 0o077  # the permissions of everybody but the owner


class InKeyring(msgspec.Struct, frozen=True):
    """The marker of a token that the user's keyring has."""

    in_keyring: bool = True


class KeptTokens:
    """The kept tokens by the server's address."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, server: str) -> str | None:
        """The token of a server in the file. Raises TokenError if the file is not as the console wrote it."""
        token = self._read().get(server)
        return token if isinstance(token, str) else None

    def is_in_keyring(self, server: str) -> bool:
        """Whether the keyring has the token of a server. Raises TokenError."""
        return isinstance(self._read().get(server), InKeyring)

    def keep(self, server: str, token: str | InKeyring) -> None:
        """Keeps a token, or the marker for it, in place of the one before. Raises TokenError and ConfigError."""
        with exclusive(self.path):
            self._write(self._read() | {server: token})

    def forget(self, server: str) -> bool:
        """Removes a server's token. Returns whether there was one. Raises TokenError and ConfigError."""
        with exclusive(self.path):
            tokens = self._read()
            if server not in tokens:
                return False
            self._write({each: token for each, token in tokens.items() if each != server})
        return True

    def _write(self, tokens: dict[str, str | InKeyring]) -> None:
        write_private(self.path, msgspec.json.format(msgspec.json.encode(tokens, order="sorted"), indent=2) + b"\n")

    def _read(self) -> dict[str, str | InKeyring]:
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(MAX_TOKENS_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise TokenError(f"the kept tokens in {self.path} cannot be read: {error.strerror}") from None
        if mode & GROUP_AND_OTHERS:
            raise TokenError(f"others can read the kept tokens in {self.path}: chmod 600 corrects that")
        try:
            return msgspec.json.decode(content[:MAX_TOKENS_BYTES], type=dict[str, str | InKeyring])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise TokenError(f"{self.path} is not a file of kept tokens: remove it, and type them again") from None


def tokens_path() -> Path:
    """The file's path: beside the configuration file. Raises ConfigError."""
    try:
        return platformdirs.user_config_path("shm") / TOKENS_FILE
    except RuntimeError:
        raise ConfigError(
            f"the user has no home directory: set XDG_CONFIG_HOME to the directory of shm/{TOKENS_FILE}"
        ) from None
