"""The settings of a client, parsed and validated once.

Each setting is read from its argument, or else from its `SHM_` variable. A wrong setting raises ConfigurationError; the
Client logs it and turns telemetry off, and the host continues.
"""

import math
import os
import sys
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from shm_sdk.names import directory_name, is_uuid
from shm_sdk.opt_out import parse_bool, unquote

DEFAULT_INTERVAL_S = 3600.0
MIN_INTERVAL_S = 60.0  # no install reports more often, which bounds the load on the vendor's server
MAX_INTERVAL_S = 30 * 86400.0  # with a longer interval an install is missing from the active ones
MAX_TEXT_CHARS = 256  # of a name, a version, an environment
INVALID_URL = "server_url must look like https://metrics.example.com"
DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DATA_FOLDER = "shm-telemetry"  # in the system's directory for user data
NO_HOME = Path("/nonexistent")  # Debian's name for it; nothing can be written there, so the identity is ephemeral
CONSENT_MODES = ("opt-out", "notice", "opt-in")
HEX_KEY_LENGTHS = (64, 128)  # a seed; a seed and its public key


class ConfigurationError(Exception):
    """A setting is missing or wrong; the message names it."""


class Configuration(NamedTuple):
    """The validated settings. An empty string means that the setting is not set."""

    server_url: str  # without a trailing slash
    app_name: str
    app_version: str
    data_dir: Path
    environment: str = ""
    deployment_mode: str = ""
    os_arch: str = ""
    report_interval: float = DEFAULT_INTERVAL_S  # seconds
    collect_system_metrics: bool = True
    consent: str = "opt-out"  # one of CONSENT_MODES
    instance_id: str = ""  # with `private_key`, replaces the identity file
    private_key: str = ""  # in hex: a seed, or a seed and its public key

    def __repr__(self) -> str:
        """Without the private key."""
        return f"Configuration({self.app_name!r}, {self.app_version!r}, {self.server_url!r})"


def load_configuration(
    arguments: Mapping[str, object], environment: Mapping[str, str], *, optional: Collection[str] = ()
) -> Configuration:
    """Reads and validates all settings; raises ConfigurationError for the first wrong one.

    `optional` names required settings that the caller does not use, such as the version for an erasure.
    """

    def read_setting(name: str) -> object:
        """The argument, else the variable, else None. An empty variable counts as not set."""
        value = arguments.get(name)
        return environment.get(f"SHM_{name.upper()}") or None if value is None else value

    app_name = _parse_text("app_name", read_setting("app_name"), required=True)
    instance_id, private_key = _parse_identity(environment)
    return Configuration(
        server_url=_parse_url(read_setting("server_url"), required="server_url" not in optional),
        app_name=app_name,
        app_version=_parse_text("app_version", read_setting("app_version"), required="app_version" not in optional),
        data_dir=_parse_data_dir(read_setting("data_dir"), app_name, environment),
        environment=_parse_text("environment", read_setting("environment")),
        deployment_mode=_parse_text("deployment_mode", read_setting("deployment_mode")),
        os_arch=_parse_text("os_arch", arguments.get("os_arch")),  # for simulations; has no variable
        report_interval=_parse_interval(read_setting("report_interval")),
        collect_system_metrics=_parse_flag(
            "collect_system_metrics", read_setting("collect_system_metrics"), default=True
        ),
        consent=_parse_consent(read_setting("consent")),
        instance_id=instance_id,
        private_key=private_key,
    )


def _parse_text(name: str, value: object, *, required: bool = False) -> str:
    if value is None or value == "":
        if required:
            raise ConfigurationError(f"{name} is missing (the argument, or SHM_{name.upper()})")
        return ""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a string, not {type(value).__name__}")
    if len(value) > MAX_TEXT_CHARS or not value.isprintable() or value.isspace():
        raise ConfigurationError(f"{name} must be at most {MAX_TEXT_CHARS} printable characters")
    return value


def _parse_url(value: object, *, required: bool) -> str:
    from urllib.parse import urlsplit

    url = _parse_text("server_url", value, required=required).rstrip("/")
    if not url:
        return ""
    if "://" not in url:
        raise ConfigurationError(f"server_url has no scheme: write https://{url}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # an invalid port, or an invalid address in brackets
        raise ConfigurationError(INVALID_URL) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigurationError(INVALID_URL)
    if not parts.path.isascii() or " " in url:
        raise ConfigurationError(INVALID_URL)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError("server_url must have neither user, password, query nor fragment")
    return url


def _parse_interval(value: object) -> float:
    """Seconds, a timedelta, or text such as `90s`, `15m`, `1h`."""
    if value is None:
        return DEFAULT_INTERVAL_S
    seconds = math.nan
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        text = value.strip().lower()
        unit = DURATION_UNITS.get(text[-1:], 0)
        try:
            seconds = float(text[:-1]) * unit if unit else float(text)
        except ValueError:
            seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError("report_interval must be seconds, a timedelta, or text such as 90s, 15m, 1h")
    return min(max(seconds, MIN_INTERVAL_S), MAX_INTERVAL_S)


def _parse_flag(name: str, value: object, *, default: bool) -> bool:
    parsed = default if value is None else parse_bool(value)
    if parsed is None:
        raise ConfigurationError(f"{name} must be true or false")
    return parsed


def _parse_data_dir(value: object, app_name: str, environment: Mapping[str, str]) -> Path:
    """The directory of the identity, absolute, so that a later `chdir` of the host does not change it."""
    if value is None or value == "":
        return default_data_dir(app_name, environment)
    if not isinstance(value, str | os.PathLike):
        raise ConfigurationError(f"data_dir must be a path, not {type(value).__name__}")
    path = os.fspath(value)
    if not isinstance(path, str) or "\0" in path or not _is_encodable(path):
        raise ConfigurationError("data_dir must be a text path without NUL characters")
    return Path(path).absolute()


def _is_encodable(path: str) -> bool:
    """Whether the system can have a file of this name."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _parse_consent(value: object) -> str:
    mode = _parse_text("consent", value).lower().replace("_", "-") or CONSENT_MODES[0]
    if mode not in CONSENT_MODES:
        raise ConfigurationError(f"consent must be one of {', '.join(CONSENT_MODES)}")
    return mode


def _parse_identity(environment: Mapping[str, str]) -> tuple[str, str]:
    """SHM_INSTANCE_ID and SHM_PRIVATE_KEY, two empty strings without them. The messages do not quote the key."""
    instance_id = unquote(environment.get("SHM_INSTANCE_ID", ""))
    private_key = unquote(environment.get("SHM_PRIVATE_KEY", ""))
    if not instance_id and not private_key:
        return "", ""
    if not instance_id or not private_key:
        raise ConfigurationError("SHM_INSTANCE_ID and SHM_PRIVATE_KEY must be set together")
    import re

    if not is_uuid(instance_id):
        raise ConfigurationError("SHM_INSTANCE_ID must be a UUID, such as one of `uuidgen`")
    if len(private_key) not in HEX_KEY_LENGTHS or not re.fullmatch("[0-9a-fA-F]+", private_key):
        raise ConfigurationError("SHM_PRIVATE_KEY must be 64 hex digits, or 128 with the public key")
    return instance_id, private_key


def default_data_dir(app_name: str, environment: Mapping[str, str]) -> Path:
    """The directory of an application that has set none."""
    try:
        return user_data_dir(environment) / DATA_FOLDER / directory_name(app_name)
    except RuntimeError:  # pathlib raises it for a user without a home directory
        return NO_HOME


def user_data_dir(environment: Mapping[str, str]) -> Path:
    """The system's directory for user data. The working directory would create a new install for each directory."""
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser())
    if sys.platform == "darwin":
        return Path("~/Library/Application Support").expanduser()
    data_home = environment.get("XDG_DATA_HOME", "")
    return Path(data_home) if data_home.startswith("/") else Path("~/.local/share").expanduser()
