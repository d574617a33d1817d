"""The identity of an install: a random ID and an Ed25519 key pair, stored in one small file.

The file is written atomically, by exactly one of several processes that start together, and never overwritten. Other
modules cannot read the private key; they call `Identity.sign`.
"""

import contextlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

FILE_NAME = "metrics_identity.json"
OFFICIAL_FILE_SUFFIX = "_shm_identity.json"
MAX_FILE_BYTES = 16 * 1024  # an identity file has about 300; a much larger file is something else
KEY_BYTES = 32

# The member names: of this SDK and the official Go client, and of the official Node.js client.
MEMBER_NAMES = (
    ("instance_id", "private_key", "public_key"),
    ("instanceId", "privateKey", "publicKey"),
)


class InvalidIdentityError(Exception):
    """The identity file exists and cannot be used. It is not changed; a person has to repair or remove it."""


class IdentityWriteError(Exception):
    """There is no identity file, and creating one failed (no permission, no space). A retry may succeed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An install's ID and keys."""

    instance_id: str
    public_key: str  # 64 hex digits
    _seed: bytes = field(repr=False)

    def sign(self, body: bytes) -> str:
        """The Ed25519 signature over exactly these bytes, in hex."""
        from nacl.signing import SigningKey

        return SigningKey(self._seed).sign(body).signature.hex()


def load_or_create(directory: Path, official_slug: str) -> Identity:
    """The identity in this directory: the SDK's file, else an official client's file, else a new identity.

    Raises InvalidIdentityError or IdentityWriteError. Processes that create one at the same time get the same identity.
    """
    path = directory / FILE_NAME
    existing = _read_file(path) or _read_file(directory / f"{official_slug}{OFFICIAL_FILE_SUFFIX}")
    if existing is not None:
        return existing
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_exclusively(_generate_document(), path)
    except OSError as error:
        raise IdentityWriteError(f"{path} cannot be written ({error.strerror})") from None
    stored = _read_file(path)  # written by this process, or by another that was faster
    if stored is None:
        raise IdentityWriteError(f"{path} was removed while it was created")
    return stored


def _read_file(path: Path) -> Identity | None:
    """The identity in a file, None if the file does not exist."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidIdentityError(f"{path} cannot be read ({error.strerror})") from None
    identity = _parse(content) if len(content) <= MAX_FILE_BYTES else None
    if identity is None:
        raise InvalidIdentityError(f"{path} is damaged and is not changed")
    return identity


def _parse(content: bytes) -> Identity | None:
    """The identity in a file's content, None if a part is invalid or the parts do not match."""
    import uuid

    from nacl.signing import SigningKey

    try:
        document = json.loads(content)
        if not isinstance(document, dict):
            return None
        for names in MEMBER_NAMES:
            if all(isinstance(document.get(name), str) for name in names):
                instance_id, private_hex, public_hex = (document[name] for name in names)
                break
        else:
            return None
        if str(uuid.UUID(instance_id)) != instance_id.lower():
            return None
        private, public = bytes.fromhex(private_hex), bytes.fromhex(public_hex)
        if len(private) != 2 * KEY_BYTES or private[KEY_BYTES:] != public:
            return None
        if bytes(SigningKey(private[:KEY_BYTES]).verify_key) != public:
            return None
    except (ValueError, RecursionError):
        return None
    return Identity(instance_id, public.hex(), private[:KEY_BYTES])


def _generate_document() -> bytes:
    """A new identity in the format of the official Go client, so that the client could use it."""
    import uuid

    from nacl.signing import SigningKey

    key = SigningKey.generate()
    public = bytes(key.verify_key)
    document = {
        "instance_id": str(uuid.uuid4()),
        "private_key": (bytes(key) + public).hex(),
        "public_key": public.hex(),
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _write_exclusively(content: bytes, target: Path) -> None:
    """Writes `target` atomically and durably, unless it exists."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        # Mode 0600 from the start. O_EXCL prevents writing through a symbolic link that another user created.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _link_exclusively(temporary, target)
        _sync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _link_exclusively(temporary: Path, target: Path) -> None:
    """Links the file to its name unless that exists, which is atomic. Some file systems have no hard links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return
    except OSError:
        _rename_exclusively(temporary, target)


def _rename_exclusively(temporary: Path, target: Path) -> None:
    """Moves the file. Windows does not rename onto an existing file; elsewhere a file lock serializes the renames."""
    if sys.platform == "win32":
        with contextlib.suppress(FileExistsError):
            temporary.rename(target)
        return
    import fcntl

    with target.with_name(f".{target.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed or the process ends
        if not target.exists():
            temporary.rename(target)


def _sync_directory(directory: Path) -> None:
    """Makes the new directory entry durable, on systems that support it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
