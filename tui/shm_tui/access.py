"""Where the server is and who is asking: address and token, from options, the environment or the token's file."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import platformdirs

from shm_tui.errors import AddressError, TokenError
from shm_tui.text.sanitizing import clean

DEFAULT_SERVER = "http://127.0.0.1:8080"
TOKEN_FILE = "admin.token"  # noqa: S105 - its name, not a token; `shm serve` keeps the first admin token there
ROOT_DATA_DIR = Path("/var/lib/shm")

_SECRETS = frozenset("@?#")  # what a token would stand before or behind
_BLANK = re.compile(r"\s")


def server_address(given: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The server's URL without a trailing slash. Raises AddressError."""
    address = (given or environ.get("SHM_SERVER") or DEFAULT_SERVER).strip().rstrip("/")
    if not _SECRETS.isdisjoint(address):
        # Not repeated here, because what stands there may be a token.
        raise AddressError("the server's address has @, ? or # in it; the token goes into --token or SHM_TOKEN")
    scheme = _scheme(address)
    if scheme is None:
        raise AddressError(
            f"“{clean(address, 200)}” is no address of a server: it begins with http:// or https:// and names a host"
        )
    # Schemes are read in either case; the client compares them.
    return scheme + address[len(scheme) :]


def data_dir(given: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The server's data directory on this machine."""
    if named := given or environ.get("SHM_DATA_DIR"):
        try:
            return Path(named).expanduser()
        except RuntimeError:
            raise TokenError(f"“{named}” is the directory of a user that this machine does not have") from None
    return ROOT_DATA_DIR if os.geteuid() == 0 else platformdirs.user_data_path("shm")


def find_token(given: str | None, directory: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The bearer token. Raises TokenError when there is none, or when it could not be sent as one."""
    token = given or environ.get("SHM_TOKEN") or environ.get("SHM_ADMIN_TOKEN") or _from_file(directory / TOKEN_FILE)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise TokenError("the token has characters in it that no token has; was something else pasted with it?")
    return token


def _scheme(address: str) -> str | None:
    """http or https; None where nothing can be asked of the address."""
    try:
        parts = urlsplit(address)
        httpx.URL(address)
        host = (parts.hostname or "").encode("idna")  # as it will be looked up
        usable = parts.scheme in {"http", "https"} and host and parts.port != 0 and not _BLANK.search(address)
    except (ValueError, httpx.InvalidURL):
        return None
    return parts.scheme if usable else None


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
