"""The server's URL and the token, from options, the environment or the token file."""

import errno
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from shm_client.httpx_without_cli import httpx
from shm_tui.errors import AddressError, MissingTokenError, TokenError
from shm_tui.text.sanitizing import sanitize

DEFAULT_SERVER = "http://127.0.0.1:8080"
TOKEN_FILE = "admin.token"  # noqa: S105 - a file name; `shm serve` stores the first admin token there
ROOT_DATA_DIR = Path("/var/lib/shm")
MAX_TOKEN_CHARS = 1024  # of the server's 47; a longer text is something else
UNENCRYPTED = "The server's address is http://, not https://: others on the network can read the token."

_CREDENTIAL_MARKS = frozenset("@?#")  # they precede or follow credentials in a URL
_WHITESPACE = re.compile(r"\s")


def resolve_server_url(option: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The server's URL without a trailing slash. Raises AddressError."""
    address = (option or environ.get("SHM_SERVER") or DEFAULT_SERVER).strip().rstrip("/")
    if not _CREDENTIAL_MARKS.isdisjoint(address):
        # The message does not repeat the address, which may contain a token.
        raise AddressError("the server's address contains @, ? or #; set the token with --token or SHM_TOKEN")
    scheme = _scheme(address)
    if scheme is None:
        raise AddressError(
            f"“{sanitize(address, 200)}” is not a server's address: expected http:// or https:// and a host"
        )
    # The client compares the scheme, which a user may write in upper case.
    return scheme + address[len(scheme) :]


def resolve_data_dir(option: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The server's data directory on this machine. Raises TokenError for the home of an unknown user."""
    if path := option or environ.get("SHM_DATA_DIR"):
        try:
            return Path(path).expanduser()
        except RuntimeError:
            raise TokenError(f"“{path}” is the directory of a user that does not exist") from None
    try:
        return ROOT_DATA_DIR if os.geteuid() == 0 else platformdirs.user_data_path("shm")
    except RuntimeError:  # a container's user without a home directory
        return ROOT_DATA_DIR


def is_loopback(server: str) -> bool:
    """Whether a server's address, as `resolve_server_url` returns it, is on this machine."""
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_unencrypted(server: str) -> bool:
    """Whether the token would cross a network in clear text."""
    return server.startswith("http://") and not is_loopback(server)


def find_token(
    option: str | None,
    directory: Path,
    server: str,
    environ: Mapping[str, str] = os.environ,
    find_kept: Callable[[], str | None] = lambda: None,
) -> str:
    """The bearer token. Raises MissingTokenError if there is none, TokenError if it has characters that no token has.

    `find_kept` finds the token that the user has typed and kept for this server.

    The token file and the server's own settings, SHM_ADMIN_TOKEN and SHM_ADMIN_TOKEN_FILE, are those of this machine's
    server, so they are not sent to any other one.
    """
    token = option or environ.get("SHM_TOKEN") or _from_secret(environ.get("SHM_TOKEN_FILE")) or find_kept()
    if not token and not is_loopback(server):
        raise MissingTokenError(
            f"no token: set --token or SHM_TOKEN. This machine's {TOKEN_FILE} and SHM_ADMIN_TOKEN are used only for a "
            "server on this machine"
        )
    token = token or environ.get("SHM_ADMIN_TOKEN") or _from_secret(environ.get("SHM_ADMIN_TOKEN_FILE"))
    return check_token(token or _from_file(directory / TOKEN_FILE))


def check_token(text: str) -> str:
    """The token without spaces around it. Raises TokenError if it has characters that no token has."""
    token = text.strip()
    if not token.isascii() or not token.isprintable() or " " in token or not 0 < len(token) <= MAX_TOKEN_CHARS:
        raise TokenError("the token has invalid characters: check that nothing else was pasted with it")
    return token


def read_token_file(path: Path) -> str:
    """The token in a file that the user names. Raises TokenError."""
    try:
        return check_token(_from_file(path.expanduser()))
    except MissingTokenError:
        raise TokenError(f"the token in {path} cannot be read: {os.strerror(errno.ENOENT)}") from None
    except RuntimeError:
        raise TokenError(f"“{path}” is the file of a user that does not exist") from None


def _scheme(address: str) -> str | None:
    """The scheme in lower case; None for an address that cannot be requested."""
    try:
        parts = urlsplit(address)
        httpx.URL(address)
        host = (parts.hostname or "").encode("idna")  # the form that is resolved
        is_valid = parts.scheme in {"http", "https"} and host and parts.port != 0 and not _WHITESPACE.search(address)
    except (ValueError, httpx.InvalidURL):
        return None
    return parts.scheme if is_valid else None


def _from_secret(path: str | None) -> str | None:
    """The token in the file that a variable names, None for an unset variable."""
    if path and not Path(path).exists():
        raise TokenError(f"the token in {path} cannot be read: {os.strerror(errno.ENOENT)}")
    return _from_file(Path(path)) if path else None


def _from_file(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        raise MissingTokenError(
            f"no token: set --token or SHM_TOKEN, or set --data-dir to the directory of {TOKEN_FILE} "
            f"({path} does not exist)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TokenError(f"the token in {path} cannot be read: {reason}") from error
    if not token:
        raise TokenError(f"{path} is empty")
    return token
