"""Who this install is: a random ID and an Ed25519 key pair, kept in one small file.

The file is written whole or not at all, by exactly one of the processes that start together, and never overwritten. The
private key stays in this file: `sign` is all that others can do with it.
"""

import contextlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

FILE_NAME = "metrics_identity.json"
OFFICIAL_SUFFIX = "_shm_identity.json"
LARGEST_FILE = 16 * 1024  # a real one has 300 bytes; whatever is much larger is not ours to read
KEY_BYTES = 32

# The members of the file: ours and the official Go client's, and the official Node.js client's.
SPELLINGS = (
    ("instance_id", "private_key", "public_key"),
    ("instanceId", "privateKey", "publicKey"),
)


class IdentityUnusable(Exception):
    """There is an identity file and it cannot be used. It stays as it is; a person has to look at it."""


class IdentityUnwritable(Exception):
    """There is no identity file and none could be made now: no right, no space. Worth another try."""


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
    """This directory's identity: our file, else an official client's, else a new one.

    Raises IdentityUnusable or IdentityUnwritable. Whoever creates one at the same moment gets the same one.
    """
    ours = directory / FILE_NAME
    found = _read(ours) or _read(directory / f"{official_slug}{OFFICIAL_SUFFIX}")
    if found is not None:
        return found
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _publish(_new_document(), ours)
    except OSError as error:
        raise IdentityUnwritable(f"{ours} cannot be written ({error.strerror})") from None
    winner = _read(ours)  # ours, or that of another process which was faster
    if winner is None:
        raise IdentityUnwritable(f"{ours} went away while it was made")
    return winner


def _read(path: Path) -> Identity | None:
    """None where there is no such file."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise IdentityUnusable(f"{path} cannot be read ({error.strerror})") from None
    identity = _parse(content) if len(content) <= LARGEST_FILE else None
    if identity is None:
        raise IdentityUnusable(f"{path} is damaged; it is left as it is")
    return identity


def _parse(content: bytes) -> Identity | None:
    """The identity in a file's content, None where any part of it is wrong or does not fit the others."""
    import uuid

    from nacl.signing import SigningKey

    try:
        document = json.loads(content)
        if not isinstance(document, dict):
            return None
        for spelling in SPELLINGS:
            if all(isinstance(document.get(name), str) for name in spelling):
                instance_id, private_hex, public_hex = (document[name] for name in spelling)
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


def _new_document() -> bytes:
    """A new identity in the spelling of the official Go client, which could take over from here."""
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


def _publish(content: bytes, target: Path) -> None:
    """Puts the content at `target`, whole and durable, unless something is there already."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        # 0600 from the first moment, and exclusive, so that no link laid out by others is written through.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _claim(temporary, target)
        _sync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _claim(temporary: Path, target: Path) -> None:
    """Gives the file its name if no other has it. A link does that atomically; some file systems have no links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return
    except OSError:
        _claim_without_links(temporary, target)


def _claim_without_links(temporary: Path, target: Path) -> None:
    """The same by renaming. Windows refuses to rename onto a file; elsewhere a lock lets one in at a time."""
    if sys.platform == "win32":
        with contextlib.suppress(FileExistsError):
            temporary.rename(target)
        return
    import fcntl

    with target.with_name(f".{target.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the file, or with the process
        if not target.exists():
            temporary.rename(target)


def _sync_directory(directory: Path) -> None:
    """Makes the new name itself survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
