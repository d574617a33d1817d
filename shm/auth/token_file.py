"""What a token looks like, and the file in the data directory that holds the server's own."""

import logging
import os
import secrets
from pathlib import Path

from shm.core.errors import ConfigurationError

logger = logging.getLogger(__name__)

TOKEN_FILE = "admin.token"  # noqa: S105 - a file's name
TOKEN_BYTES = 32
MIN_TOKEN_LENGTH = 20  # characters of one that somebody thought of; anything shorter can be guessed


def generate_token() -> str:
    """A new token; whoever finds one somewhere can tell by its beginning what it is."""
    return f"shm_{secrets.token_urlsafe(TOKEN_BYTES)}"


def read_or_create(file: Path) -> str:
    """The token in `file`; a new one, mode 0600, where there is no such file. One winner among processes."""
    try:
        if not file.exists():
            _make(file)
        token = file.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"The admin token in {file} cannot be read or made: {error.strerror}.") from None
    if len(token) < MIN_TOKEN_LENGTH:
        raise ConfigurationError(f"{file} holds no token; remove it and the next start makes one.")
    return token


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as handle:
            handle.write(f"{generate_token()}\n")
            handle.flush()
            os.fsync(descriptor)
        os.link(unfinished, file)
        logger.info("made an admin token in %s", file)
    except FileExistsError:
        pass
    finally:
        unfinished.unlink()
