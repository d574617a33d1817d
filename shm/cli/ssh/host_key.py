"""The key by which clients recognize the SSH server. The first start creates it."""

from pathlib import Path

import asyncssh

from shm.cli.ssh import key_directory
from shm.core.errors import ConfigurationError

FILE = "host_key"
ALGORITHM = "ssh-ed25519"
OTHERS = 0o077  # permissions of the group and of all others


def load_or_create(data_dir: Path) -> asyncssh.SSHKey:
    """The host key, in OpenSSH's format with mode 0600. Raises ConfigurationError."""
    with key_directory.locked(data_dir) as directory:
        file = directory / FILE
        if not file.exists():
            key_directory.write(file, asyncssh.generate_private_key(ALGORITHM).export_private_key())
        try:
            if file.stat().st_mode & OTHERS:
                raise ConfigurationError(f"The host key {file} is open to other users. Run: chmod 600 {file}")
            return asyncssh.read_private_key(file)
        except (OSError, asyncssh.KeyImportError) as error:
            problem = error.strerror if isinstance(error, OSError) else "it is not a private key"
            raise ConfigurationError(
                f"The host key {file} cannot be read: {problem}. Without the file, the next start creates another key."
            ) from None
