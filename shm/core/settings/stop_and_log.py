"""The end of the server, and its log."""

from dataclasses import dataclass
from datetime import timedelta

from shm.core.settings.fields import setting
from shm.core.settings.parsers import parse_duration, parse_log_level


@dataclass(frozen=True, kw_only=True)
class StopAndLogSettings:
    """Stop and log."""

    drain_timeout: timedelta = setting(
        "SHM_DRAIN_TIMEOUT",
        parse_duration,
        "20s",
        "Time for requests in flight after SIGTERM. Docker and systemd kill a process that takes much longer.",
    )
    log_level: str = setting(
        "SHM_LOG_LEVEL",
        parse_log_level,
        "info",
        "info: starts, stops and errors. debug: also the code of each refusal, and the messages of libraries.",
    )
