"""Where the server is and who is asking: address and token, from options, the environment or the token's file."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from .errors import AddressError, TokenError

DEFAULT_SERVER = "http://127.0.0.1:8080"
TOKEN_FILE = "admin.token"  # noqa: S105 - its name, not a token; `shm serve` keeps the first admin token there
ROOT_DATA_DIR = Path("/var/lib/shm")


def server_address(given: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The server's URL without a trailing slash. Raises AddressError."""
    address = (given or environ.get("SHM_SERVER") or DEFAULT_SERVER).strip().rstrip("/")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable:
        raise AddressError(
            f"“{address}” is no address of a server: it begins with http:// or https:// and names a host"
        )
    if parts.username or parts.query or parts.fragment:
        raise AddressError(
            "the server's address has a user name, ? or # in it; the token goes into --token or SHM_TOKEN"
        )
    return address


def data_dir(given: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The server's data directory on this machine."""
    if given or environ.get("SHM_DATA_DIR"):
        return Path(given or environ["SHM_DATA_DIR"]).expanduser()
    return ROOT_DATA_DIR if os.geteuid() == 0 else platformdirs.user_data_path("shm")


def find_token(given: str | None, directory: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The bearer token. Raises TokenError when there is none, or when it could not be sent as one."""
    token = given or environ.get("SHM_TOKEN") or environ.get("SHM_ADMIN_TOKEN") or _from_file(directory / TOKEN_FILE)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise TokenError("the token has characters in it that no token has; was something else pasted with it?")
    return token


def _from_file(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise TokenError(
            f"no token: give --token, set SHM_TOKEN, or say with --data-dir where the server keeps {TOKEN_FILE} "
            f"(looked for {path})"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise TokenError(f"the token in {path} cannot be read: {reason}") from error
    if not token:
        raise TokenError(f"{path} is empty")
    return token
