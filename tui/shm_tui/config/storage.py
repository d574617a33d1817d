"""Writes the console's own files: whole or not at all, readable by their user only."""

import os
import secrets
from pathlib import Path

from shm_tui.errors import ConfigError


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file, or the one that a link leads to, with mode 0600. Raises ConfigError; nothing is changed then."""
    try:
        target = path.resolve()  # a link into a repository of settings remains one
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = error.strerror if isinstance(error, OSError) else "its links form a circle"
        raise ConfigError(f"{path} cannot be written: {reason}") from None
