"""The settings of `shm ssh`, with name, default and reason. Its data directory and its log level are in `Settings`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from shm.core.settings.fields import setting, setting_specs
from shm.core.settings.parsers import parse_base_url, parse_duration, parse_host, parse_port, parse_positive_int
from shm.core.settings.sources import read_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SshSettings:
    """All settings of `shm ssh`, parsed and validated."""

    host: str = setting(
        "SHM_SSH_HOST",
        parse_host,
        "127.0.0.1",
        "Address on which `shm ssh` listens. The default is reachable from this machine only, so that nothing is "
        "public by accident.",
    )
    port: int = setting(
        "SHM_SSH_PORT",
        parse_port,
        "2222",
        "Port of `shm ssh`. 22 belongs to the machine's own sshd, and an ordinary user cannot listen on it.",
    )
    server: str = setting(
        "SHM_SERVER",
        parse_base_url,
        "http://127.0.0.1:8080",
        "The server that the consoles show, as for `shm console`. `shm ssh` itself needs no database.",
    )
    max_sessions: int = setting(
        "SHM_SSH_MAX_SESSIONS",
        parse_positive_int,
        "20",
        "Consoles at once. Each is a process with some 30 MB of its own.",
    )
    max_sessions_per_key: int = setting(
        "SHM_SSH_MAX_SESSIONS_PER_KEY",
        parse_positive_int,
        "5",
        "Consoles at once of one key, so that nobody alone can use up all of them. A person has a few windows open.",
    )
    login_timeout: timedelta = setting(
        "SHM_SSH_LOGIN_TIMEOUT",
        parse_duration,
        "1m",
        "Time for the login, and then for a connection without a console. A person confirms the use of a key and types "
        "a passphrase in that time.",
    )
    idle_timeout: timedelta = setting(
        "SHM_SSH_IDLE_TIMEOUT",
        parse_duration,
        "1h",
        "A console ends if no key was pressed for this time, so that nobody finds one at a terminal that was left. A "
        "screen on a wall needs more.",
    )

    @classmethod
    def load(cls, environment: Mapping[str, str], flags: Mapping[str, object]) -> "SshSettings":
        """Reads the environment. `flags` (by field name; None if absent) override it.

        Raises ConfigurationError. `Settings.load` checks the names of variables.
        """
        values = {name: value for name, (_, value) in read_settings(setting_specs(cls), environment, flags).items()}
        return cls(**cast(dict[str, Any], values))
