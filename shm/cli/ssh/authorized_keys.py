"""The keys that may open a console, in a file of the data directory. Each has a name and an API token of its own.

The token is in the file, because the console presents it to the server, and so the file has mode 0600. The comment of a
public key is not stored: it usually has the names of a user and a machine.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import asyncssh
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from shm.cli.ssh import key_directory
from shm.core.errors import ConfigurationError
from shm.core.json_types import Timestamp

FILE = "authorized_keys.json"
MAX_PUBLIC_KEY_BYTES = 16_384  # of a file with a public key; one of RSA with 16,384 bits has 3,000
PRIVATE = "PRIVATE KEY-----"  # in a file with a private key
MIN_RSA_BITS = 2048  # of the modulus; shorter ones can be factored
ALGORITHMS = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        *(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)),
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)


class AuthorizedKey(msgspec.Struct, frozen=True):
    """A key: its algorithm and data as in a line of OpenSSH, and the ID and the secret of its token."""

    name: str
    public_key: str
    token_id: str
    token: str
    added_at: Timestamp

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return asyncssh.import_public_key(self.public_key).get_fingerprint()


class AuthorizedKeys:
    """The authorized keys of a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._file = data_dir / key_directory.DIRECTORY / FILE
        self._version: tuple[int, int, int] | None = None  # of the file that `_by_key` is read from
        self._by_key: dict[str, AuthorizedKey] = {}

    def find(self, public_key: str) -> AuthorizedKey | None:
        """The authorized key with this public key, as `encode_public_key` returns it. Raises ConfigurationError."""
        return self._read().get(public_key)

    def list(self) -> list[AuthorizedKey]:
        """All keys by name. Raises ConfigurationError."""
        return sorted(self._read().values(), key=lambda key: key.name)

    def find_conflict(self, name: str, public_key: str) -> AuthorizedKey | None:
        """The key that has this name or is the same key. Raises ConfigurationError."""
        return next((key for key in self.list() if name == key.name or public_key == key.public_key), None)

    def add(self, key: AuthorizedKey) -> None:
        """Adds a key. Raises ConfigurationError, also if the list already has its name or the key."""
        with key_directory.locked(self._data_dir):
            if existing := self.find_conflict(key.name, key.public_key):
                raise already_authorized(existing)
            self._write([*self.list(), key])

    def remove(self, name: str) -> AuthorizedKey:
        """Removes a key and returns it. Raises ConfigurationError if there is none of this name."""
        with key_directory.locked(self._data_dir):
            keys = {key.name: key for key in self.list()}
            if name not in keys:
                raise ConfigurationError(f"No key has the name {name}. `shm ssh list` shows all of them.")
            removed = keys.pop(name)
            self._write(list(keys.values()))
        return removed

    def _read(self) -> dict[str, AuthorizedKey]:
        """The keys by their public key, read again if the file has changed."""
        try:
            status = self._file.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if version != self._version:
                keys = msgspec.json.decode(self._file.read_bytes(), type=list[AuthorizedKey])
                self._by_key = {key.public_key: key for key in keys}
                self._version = version
        except FileNotFoundError:
            self._by_key, self._version = {}, None
        except (OSError, msgspec.DecodeError) as error:
            problem = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise ConfigurationError(f"The authorized keys in {self._file} cannot be read: {problem}.") from None
        return self._by_key

    def _write(self, keys: Sequence[AuthorizedKey]) -> None:
        key_directory.write(self._file, msgspec.json.format(msgspec.json.encode(keys)))


def already_authorized(key: AuthorizedKey) -> ConfigurationError:
    """The error of a second key of a name, or of the same key again."""
    return ConfigurationError(f"{key.name} ({key.fingerprint}) is already authorized. Remove it first: shm ssh remove")


def parse_public_key(content: bytes) -> str:
    """The public key of a file, as `encode_public_key` returns it. Raises ConfigurationError."""
    try:
        text = content.decode("utf-8-sig").strip()
        key = None if PRIVATE in text else asyncssh.import_public_key(text)  # which derives it from a private key
    except (UnicodeDecodeError, asyncssh.KeyImportError):
        key = None
    if key is None:
        raise ConfigurationError(
            "This is not a public key: expected the line of a file such as id_ed25519.pub, without options before it."
        )
    algorithm = key.get_algorithm()
    if algorithm not in ALGORITHMS or (algorithm == "ssh-rsa" and _rsa_bits(key) < MIN_RSA_BITS):
        raise ConfigurationError(
            f"A key of the kind {algorithm} of this length is not safe enough. Make another one: ssh-keygen -t ed25519"
        )
    return encode_public_key(key)


def _rsa_bits(key: asyncssh.SSHKey) -> int:
    """The length of the modulus of an RSA key."""
    return cast(RSAPublicKey, key.pyca_key).key_size


def encode_public_key(key: asyncssh.SSHKey) -> str:
    """A public key as text: its algorithm and its data, without a comment."""
    return f"{key.get_algorithm()} {base64.b64encode(key.public_data).decode()}"
