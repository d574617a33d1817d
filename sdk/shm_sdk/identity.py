"""The identity of an install: a random ID and an Ed25519 key pair, stored in one small file.

The file is written atomically, by exactly one of several processes that start together, and never overwritten. It names
its application: if the directory has the identity of another application, this one gets a sub-directory. If no file can
be used, the identity is ephemeral: it ends with the process, and the server counts it separately. Other modules sign
with `Identity.sign` and do not read the private key.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from shm_sdk import signing
from shm_sdk.configuration import DATA_FOLDER, Configuration, user_data_dir
from shm_sdk.ephemeral_storage import is_ephemeral
from shm_sdk.files import open_regular_file, write_exclusively
from shm_sdk.names import directory_name, is_exact, is_uuid, official_slug

FILE_NAME = "metrics_identity.json"
OFFICIAL_FILE_SUFFIX = "_shm_identity.json"
MAX_FILE_BYTES = 16 * 1024  # an identity file has about 300; a much larger file is something else
KEY_BYTES = 32
MAX_EPHEMERAL_AGE_S = 86400.0  # an identity that is older has outlived its container

# The member names: of this SDK and the official Go client, and of the official Node.js client.
MEMBER_NAMES = (
    ("instance_id", "private_key", "public_key"),
    ("instanceId", "privateKey", "publicKey"),
)


class InvalidIdentityError(Exception):
    """The identity file exists and cannot be used. It is not changed; a person has to repair or remove it."""


class IdentityWriteError(Exception):
    """There is no identity file, and creating one failed (no permission, no space). A retry may succeed."""


class Identity(NamedTuple):
    """An install's ID and keys.

    `path` is its file, None without one. `ephemeral_reason` says why the identity does not last; it is empty for one
    that does.
    """

    instance_id: str
    public_key: str  # 64 hex digits
    seed: bytes  # the private key
    path: Path | None = None
    app_name: str = ""  # as the file names it
    ephemeral_reason: str = ""

    @property
    def is_ephemeral(self) -> bool:
        """Whether the server counts this install separately from lasting ones."""
        return bool(self.ephemeral_reason)

    def sign(self, body: bytes) -> str:
        """The Ed25519 signature over exactly these bytes, in hex."""
        return signing.library.sign(self.seed, body).hex()

    def has_signed(self, body: bytes, signature: str) -> bool:
        """Whether this is a signature of `sign` over these bytes."""
        try:
            return signing.library.is_valid(bytes.fromhex(self.public_key), body, bytes.fromhex(signature))
        except ValueError:  # not hex
            return False

    def __repr__(self) -> str:
        """Without the private key."""
        return f"Identity({self.instance_id!r}, {self.app_name!r})"


def obtain(configuration: Configuration) -> Identity:
    """The identity of this install. Ephemeral where none can be stored, or the stored one is unusable. Never fails."""
    try:
        if configuration.instance_id:
            return _from_settings(configuration)
        identity = load_or_create(configuration.data_dir, configuration.app_name)
        is_simulated = bool(configuration.os_arch)  # a demo's fleet has a day neither before it nor after it
        return identity._replace(ephemeral_reason="") if is_simulated else identity
    except (InvalidIdentityError, IdentityWriteError) as error:
        return create_ephemeral(str(error))


def find(configuration: Configuration) -> Identity | None:
    """The identity that `obtain` would find, None where it would create one. Raises InvalidIdentityError."""
    if configuration.instance_id:
        return _from_settings(configuration)
    return load(configuration.data_dir, configuration.app_name)


def load_or_create(directory: Path, app_name: str) -> Identity:
    """The application's identity in this directory, created if there is none.

    Raises InvalidIdentityError or IdentityWriteError. Processes that create one at the same time get the same identity.
    """
    existing = load(directory, app_name)
    if existing is not None:
        return existing
    document = _generate_document(app_name)
    for path in (directory / FILE_NAME, directory / directory_name(app_name) / FILE_NAME):
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_exclusively(document, path)
        except OSError as error:
            raise IdentityWriteError(f"{path} cannot be written ({error.strerror})") from None
        stored = _read_file(path)  # written by this process, or by another that was faster
        if stored is None:
            raise IdentityWriteError(f"{path} was removed while it was created")
        if _belongs_to(stored, app_name):
            return stored
    raise InvalidIdentityError(f"{directory / directory_name(app_name)} belongs to another application")


def load(directory: Path, app_name: str) -> Identity | None:
    """The application's identity: the SDK's file, in the directory or below it, else an official client's file.

    None if there is none. Raises InvalidIdentityError.
    """
    damage: InvalidIdentityError | None = None
    for path in (directory / FILE_NAME, directory / directory_name(app_name) / FILE_NAME):
        try:
            found = _read_file(path)
        except InvalidIdentityError as error:  # perhaps another application's
            damage = damage or error
            continue
        if found is not None and _belongs_to(found, app_name):
            return found
    if damage is not None:
        raise damage
    found = _read_file(directory / f"{official_slug(app_name)}{OFFICIAL_FILE_SUFFIX}")
    return found if found is not None and _belongs_to(found, app_name) else None


def find_applications(data_dir: str | None, environment: Mapping[str, str]) -> list[str]:
    """The names of all applications with an identity in this directory, or in that of the user's data."""
    directory = data_dir or environment.get("SHM_DATA_DIR")
    names: set[str] = set()
    with contextlib.suppress(OSError, RuntimeError):
        root = Path(directory) if directory else user_data_dir(environment) / DATA_FOLDER
        for path in (*root.glob(FILE_NAME), *root.glob(f"*/{FILE_NAME}"), *root.glob(f"*/*/{FILE_NAME}")):
            with contextlib.suppress(InvalidIdentityError):
                found = _read_file(path)
                names.add(found.app_name if found else "")
    return sorted(names - {""})


def create_ephemeral(reason: str) -> Identity:
    """A new identity without a file."""
    identity = _parse(_generate_document(""))
    assert identity is not None  # noqa: S101  # made the line before
    return identity._replace(ephemeral_reason=reason)


def _from_settings(configuration: Configuration) -> Identity:
    private = bytes.fromhex(configuration.private_key)
    seed, public = private[:KEY_BYTES], private[KEY_BYTES:]
    derived = signing.library.derive_public_key(seed)
    if public and public != derived:
        raise InvalidIdentityError("SHM_PRIVATE_KEY is damaged: its halves do not match")
    return Identity(configuration.instance_id, derived.hex(), seed, app_name=configuration.app_name)


def _belongs_to(identity: Identity, app_name: str) -> bool:
    """Whether a file is this application's. The first application that reads a file without a name claims it."""
    if identity.app_name:
        return directory_name(identity.app_name) == directory_name(app_name)
    path = identity.path
    if path is None or (path.name.endswith(OFFICIAL_FILE_SUFFIX) and is_exact(app_name)):
        return True  # the file's name is the application's
    claim = path.with_name(f".{path.name}.app")
    try:
        if not claim.exists():
            write_exclusively(directory_name(app_name).encode(), claim)
        with open_regular_file(claim) as file:
            return file.read(MAX_FILE_BYTES) == directory_name(app_name).encode()
    except (OSError, ValueError):  # a read-only directory
        return True


def _read_file(path: Path) -> Identity | None:
    """The identity in a file, None if the file does not exist."""
    try:
        with open_regular_file(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
            age_s = time.time() - os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise InvalidIdentityError(f"{path} cannot be read ({error.strerror})") from None
    identity = _parse(content) if len(content) <= MAX_FILE_BYTES else None
    if identity is None:
        raise InvalidIdentityError(f"{path} is damaged and is not changed")
    reason = ""
    if age_s < MAX_EPHEMERAL_AGE_S and is_ephemeral(path.parent):
        reason = f"{path.parent} ends with its container, and the identity is less than a day old"
    return identity._replace(path=path, ephemeral_reason=reason)


def _parse(content: bytes) -> Identity | None:
    """The identity in a file's content, None if a part is invalid or the parts do not match."""
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
        if not is_uuid(instance_id):
            return None
        private, public = bytes.fromhex(private_hex), bytes.fromhex(public_hex)
        if len(private) != 2 * KEY_BYTES or private[KEY_BYTES:] != public:
            return None
        if signing.library.derive_public_key(private[:KEY_BYTES]) != public:
            return None
    except (ValueError, RecursionError):
        return None
    app_name = document.get("app_name")
    return Identity(
        instance_id, public.hex(), private[:KEY_BYTES], app_name=app_name if isinstance(app_name, str) else ""
    )


def _generate_uuid() -> str:
    """A random UUID (RFC 9562, version 4)."""
    random = bytearray(os.urandom(16))
    random[6], random[8] = random[6] & 0x0F | 0x40, random[8] & 0x3F | 0x80
    digits = random.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _generate_document(app_name: str) -> bytes:
    """A new identity in the format of the official Go client, so that the client could use it."""
    seed = signing.generate_seed()
    public = signing.library.derive_public_key(seed)
    document = {
        "instance_id": _generate_uuid(),
        "private_key": (seed + public).hex(),
        "public_key": public.hex(),
        "app_name": app_name,
    }
    return json.dumps(document, indent=2).encode() + b"\n"
