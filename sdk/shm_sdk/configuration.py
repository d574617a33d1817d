"""What the host application says about itself and about how to report, checked once.

Each setting comes from its argument, or else from its `SHM_` variable. A wrong one raises ConfigurationError, which the
Client turns into one log line: telemetry is then off, and the host runs on.
"""

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from shm_sdk.consent import switch

DEFAULT_INTERVAL = 3600.0
SHORTEST_INTERVAL = 60.0  # the server's promise to its vendor: no install reports more often than that
LONGEST_INTERVAL = 7 * 86400.0  # past that, an install would not count as active in most reports
LONGEST_WORD = 256  # characters in a name, a version, an environment
URL_WANTED = "server_url must look like https://metrics.example.com"
DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# What the official clients make of accented letters when they name a file; other letters they leave out.
ACCENTS = str.maketrans("àáâãäåèéêëìíîïòóôõöùúûüýÿñç _", "aaaaaaeeeeiiiiooooouuuuyync--")


class ConfigurationError(Exception):
    """A setting is missing or wrong; the message names it."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, all of them right. Empty strings stand for what was not said."""

    server_url: str  # without a slash at its end
    app_name: str
    app_version: str
    data_dir: Path
    environment: str = ""
    deployment_mode: str = ""
    os_arch: str = ""
    report_interval: float = DEFAULT_INTERVAL  # seconds
    collect_system_metrics: bool = True


def configure(arguments: Mapping[str, object], environment: Mapping[str, str]) -> Configuration:
    """Reads and checks every setting; raises ConfigurationError at the first that is wrong."""

    def given(name: str) -> object:
        """The argument, else the variable, else None; an empty variable is as good as none."""
        value = arguments.get(name)
        return environment.get(f"SHM_{name.upper()}") or None if value is None else value

    app_name = _word("app_name", given("app_name"), required=True)
    return Configuration(
        server_url=_url(given("server_url")),
        app_name=app_name,
        app_version=_word("app_version", given("app_version"), required=True),
        data_dir=_folder(given("data_dir"), app_name, environment),
        environment=_word("environment", given("environment")),
        deployment_mode=_word("deployment_mode", given("deployment_mode")),
        os_arch=_word("os_arch", arguments.get("os_arch")),  # for simulations, so not in the environment
        report_interval=_interval(given("report_interval")),
        collect_system_metrics=_switch("collect_system_metrics", given("collect_system_metrics"), default=True),
    )


def _word(name: str, value: object, *, required: bool = False) -> str:
    if value is None or value == "":
        if required:
            raise ConfigurationError(f"{name} is missing (the argument, or SHM_{name.upper()})")
        return ""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a string, not {type(value).__name__}")
    if len(value) > LONGEST_WORD or not value.isprintable() or value.isspace():
        raise ConfigurationError(f"{name} must be at most {LONGEST_WORD} printable characters")
    return value


def _url(value: object) -> str:
    from urllib.parse import urlsplit

    url = _word("server_url", value, required=True).rstrip("/")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number, an address in brackets that is none
        raise ConfigurationError(URL_WANTED) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigurationError(URL_WANTED)
    if not parts.path.isascii() or " " in url:
        raise ConfigurationError(URL_WANTED)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError("server_url must have neither user, password, query nor fragment")
    return url


def _interval(value: object) -> float:
    """Seconds, a timedelta, or text such as `90s`, `15m`, `1h`."""
    if value is None:
        return DEFAULT_INTERVAL
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
    return min(max(seconds, SHORTEST_INTERVAL), LONGEST_INTERVAL)


def _switch(name: str, value: object, *, default: bool) -> bool:
    meant = default if value is None else switch(value)
    if meant is None:
        raise ConfigurationError(f"{name} must be true or false")
    return meant


def _folder(value: object, app_name: str, environment: Mapping[str, str]) -> Path:
    """The directory that keeps the identity, absolute, so that a later `chdir` of the host changes nothing."""
    if value is None or value == "":
        try:
            return _data_home(environment) / "shm-telemetry" / folder_name(app_name)
        except RuntimeError:  # what pathlib raises for a user without a home
            raise ConfigurationError("data_dir is missing, and this user has no home directory") from None
    if not isinstance(value, str | os.PathLike):
        raise ConfigurationError(f"data_dir must be a path, not {type(value).__name__}")
    path = os.fspath(value)
    if not isinstance(path, str) or "\0" in path:
        raise ConfigurationError("data_dir must be a path in text")
    return Path(path).absolute()


def _data_home(environment: Mapping[str, str]) -> Path:
    """Where this system keeps what belongs to a user. The working directory would not do: each would be an install."""
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser())
    if sys.platform == "darwin":
        return Path("~/Library/Application Support").expanduser()
    named = environment.get("XDG_DATA_HOME", "")
    return Path(named) if named.startswith("/") else Path("~/.local/share").expanduser()


def official_slug(app_name: str) -> str:
    """The name as the official clients put it before `_shm_identity.json`."""
    kept = (letter for letter in app_name.lower().translate(ACCENTS) if letter == "-" or _plain(letter))
    return "-".join(part for part in "".join(kept).split("-") if part) or "app"


def folder_name(app_name: str) -> str:
    """A directory of its own for each application: the slug, and a digest where the slug had to leave something out."""
    slug = official_slug(app_name)
    if all(letter == "-" or _plain(letter) for letter in app_name.lower().translate(ACCENTS)):
        return slug
    import hashlib

    return f"{slug}-{hashlib.sha256(app_name.encode()).hexdigest()[:8]}"


def _plain(letter: str) -> bool:
    return letter.isascii() and letter.isalnum()
