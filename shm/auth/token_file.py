"""Generates tokens, and keeps the server's own one in a file of the data directory."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shm.core.errors import ConfigurationError
from shm.core.lock_files import acquire_exclusive, open_lock_file
from shm.core.ownership import chown_to_owner_of

logger = logging.getLogger(__name__)

TOKEN_FILE = "admin.token"  # noqa: S105 - a file's name
TOKEN_BYTES = 32
MIN_TOKEN_LENGTH = 20  # characters of SHM_ADMIN_TOKEN; a shorter token can be guessed


def generate_token() -> str:
    """A random token. The prefix identifies it in leaked files and for secret scanners."""
    return f"shm_{secrets.token_urlsafe(TOKEN_BYTES)}"


def read_or_create(file: Path) -> str:
    """The token in `file`. Creates a missing file with mode 0600; concurrent processes get the same token.

    Raises ConfigurationError.
    """
    try:
        if not file.exists():
            _create(file)
        token = file.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise ConfigurationError(
            f"The admin token in {file} cannot be read or created: {error.strerror}. Make its directory usable for the "
            "user that runs shm, use another SHM_DATA_DIR, or set SHM_ADMIN_TOKEN."
        ) from None
    except UnicodeDecodeError:
        token = ""
    if not is_usable(token):
        raise ConfigurationError(f"{file} contains no valid token. Remove it; the next start creates one.")
    return token


def is_usable(token: str) -> bool:
    """Whether a token is long enough, and whether a header can carry it."""
    return len(token) >= MIN_TOKEN_LENGTH and token.isascii() and token.isprintable() and " " not in token


def read_existing(file: Path) -> str:
    """The token in `file`; empty if there is no such file that can be read."""
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        return ""


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Within this context, no other process replaces the token in `file`. Raises ConfigurationError."""
    try:
        lock = open_lock_file(file.with_name(f"{file.name}.lock"))
    except OSError as error:
        raise _not_replaced(file, error) from None
    with lock:
        acquire_exclusive(lock)
        yield


def stage(file: Path, token: str) -> None:
    """Writes the token that will replace the one in an existing file beside it, whole or not at all. The owner stays.

    Raises ConfigurationError.
    """
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        owner = file.stat()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as handle:
                if os.geteuid() == 0:
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                handle.write(f"{token}\n")
                handle.flush()
                os.fsync(descriptor)
            temporary.replace(_staged_file(file))
            _sync_directory(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _not_replaced(file, error) from None


def read_staged(file: Path) -> str:
    """The staged token; empty if there is none."""
    return read_existing(_staged_file(file))


def publish_staged(file: Path) -> None:
    """Replaces the token in `file` with the staged one. Raises ConfigurationError."""
    try:
        _staged_file(file).replace(file)
        _sync_directory(file)
    except OSError as error:
        raise _not_replaced(file, error) from None


def discard_staged(file: Path) -> None:
    """Removes a staged token that did not become valid."""
    with suppress(OSError):
        _staged_file(file).unlink()


def _not_replaced(file: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The admin token in {file} cannot be replaced: {error.strerror}. Make its directory writable for the "
        "user that runs shm."
    )


def _staged_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.next")


def _sync_directory(file: Path) -> None:
    """Makes a rename durable, so that a power cut does not undo it after the database has the token."""
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot, and the rename has succeeded
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as handle:
            chown_to_owner_of(file.parent, descriptor)
            handle.write(f"{generate_token()}\n")
            handle.flush()
            os.fsync(descriptor)
        if _link_exclusively(temporary, file):
            logger.info("created an admin token in %s", file)
    finally:
        temporary.unlink(missing_ok=True)


def _link_exclusively(temporary: Path, file: Path) -> bool:
    """Gives the file its name unless that exists; returns whether it did. Some file systems have no hard links."""
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    except OSError:
        with open_lock_file(file.with_name(f"{file.name}.lock")) as lock:
            acquire_exclusive(lock)
            if file.exists():
                return False
            temporary.rename(file)
    return True
