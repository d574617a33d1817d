"""Every setting of the server: its name, its default, and the reason for it.

Values come from the environment (`Settings.load`), flags of `shm serve` override them. An unknown `SHM_` name or a
value that cannot be read stops the start with a sentence: a misspelt limit must not quietly be no limit.
"""

import argparse
import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import platformdirs

from shm.errors import ConfigurationError
from shm.values import (
    Network,
    activation,
    duration,
    folder,
    headers_size,
    hours,
    log_level,
    networks,
    number,
    pool_size,
    port_number,
    size,
    text,
    words,
    yes_or_no,
)

# What Kubernetes puts into the environment of every container beside a service called shm, or shm-something.
OF_KUBERNETES = re.compile(r"SHM_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_[0-9]+_\w+)?)")

# Names of the SDK and of the console. They may stand in the environment of a machine that also runs the server.
NAMES_OF_OTHERS = frozenset(
    {
        "SHM_APP_NAME",
        "SHM_APP_VERSION",
        "SHM_COLLECT_SYSTEM_METRICS",
        "SHM_DEPLOYMENT_MODE",
        "SHM_ENABLED",
        "SHM_ENVIRONMENT",
        "SHM_REPORT_INTERVAL",
        "SHM_SERVER",
        "SHM_SERVER_URL",
        "SHM_TELEMETRY",
        "SHM_TOKEN",
    }
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a setting comes from: environment names in order, how to read it, and the reason for its default."""

    names: tuple[str, ...]
    read: Callable[[str], object]
    reason: str
    flag: bool = True


def setting(names: str, read: Callable[[str], Any], default: str | None, reason: str, *, flag: bool = True) -> Any:
    """A field of Settings; `default` is written as a person would write it, and read like any other value."""
    source = Source(tuple(names.split()), read, reason, flag)
    return field(default=None if default is None else read(default), metadata={"source": source, "shown": default})


def default_data_dir() -> str:
    """The user's data folder; for root a system folder, because embedded PostgreSQL must be able to enter it."""
    return "/var/lib/shm" if os.geteuid() == 0 else str(platformdirs.user_data_path("shm", appauthor=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, read and checked. Durations are timedeltas, sizes bytes."""

    host: str = setting(
        "SHM_HOST", text, "127.0.0.1", "Reachable from this machine only, until somebody says otherwise."
    )
    port: int = setting("PORT", port_number, "8080", "The original's port.")
    dsn: str | None = setting(
        "SHM_DB_DSN DATABASE_URL",
        text,
        None,
        "Without a database of yours, an embedded PostgreSQL is started. A password belongs in the environment.",
    )
    workers: int = setting(
        "SHM_WORKERS",
        number,
        "1",
        "A process keeps one core busy; where there are more, more processes take in more snapshots.",
    )
    data_dir: Path = setting(
        "SHM_DATA_DIR", folder, default_data_dir(), "The embedded PostgreSQL and the admin token live here."
    )
    admin_token: str | None = setting(
        "SHM_ADMIN_TOKEN", text, None, "Without one, the first start makes one in the data directory.", flag=False
    )
    max_tokens: int = setting(
        "SHM_MAX_TOKENS", number, "1000", "One for each person and each script; more come from a script gone wild."
    )
    activation: str = setting(
        "SHM_ACTIVATION",
        activation,
        "tofu",
        "tofu: whoever first proves a key is in. manual: an admin approves each install, and snapshots wait for it.",
    )
    active_window: timedelta = setting(
        "SHM_ACTIVE_WINDOW", duration, "30d", "An install that was silent for a month is gone for all one can tell."
    )
    uncounted_environments: frozenset[str] = setting(
        "SHM_UNCOUNTED_ENVIRONMENTS",
        words,
        "dev,development,test,testing,ci,local",
        "Machines of developers are no users; they are shown beside the headline.",
    )
    max_snapshot_age: timedelta = setting(
        "SHM_MAX_SNAPSHOT_AGE", duration, "30d", "A backlog may be a month old; what is older changes no figure shown."
    )
    max_clock_skew: timedelta = setting(
        "SHM_MAX_CLOCK_SKEW", duration, "5m", "Clocks differ; a snapshot from further ahead would stay newest for long."
    )
    retention: timedelta = setting(
        "SHM_RETENTION",
        duration,
        "90d",
        "Raw snapshots are for looking at an install's past and for proof; charts are kept for good.",
    )
    max_body: int = setting(
        "SHM_MAX_BODY", size, "64k", "Three times the largest honest snapshot (256 metrics with long keys)."
    )
    max_reading: int = setting(
        "SHM_MAX_READING",
        size,
        "256m",
        "Of bodies on their way, all together: whoever holds many open fills no memory.",
    )
    max_headers: int = setting(
        "SHM_MAX_HEADERS", headers_size, "16k", "Ten times what a client sends together with a proxy."
    )
    max_name: int = setting(
        "SHM_MAX_NAME", number, "256", "Of an application, a version, an environment: a table shows far less."
    )
    max_backlog: int = setting(
        "SHM_MAX_BACKLOG",
        number,
        "100",
        "Four days of hourly snapshots in one request; a longer silence takes several.",
    )
    max_backlog_body: int = setting(
        "SHM_MAX_BACKLOG_BODY", size, "1m", "A hundred usual snapshots of a few KiB each, and their signature is one."
    )
    max_metrics: int = setting(
        "SHM_MAX_METRICS", number, "256", "More is no snapshot of aggregate counters but a dump of records."
    )
    max_depth: int = setting("SHM_MAX_DEPTH", number, "8", "A group in a group is read; a tree is not.")
    max_key: int = setting("SHM_MAX_KEY", number, "128", "A key is a column's title: it must fit one.")
    max_text: int = setting("SHM_MAX_TEXT", number, "1024", "A label or a version; never a document.")
    pending_age: timedelta = setting(
        "SHM_PENDING_AGE", duration, "1d", "Whoever registered and has proven no key in a day never will."
    )
    ratelimit_enabled: bool = setting(
        "SHM_RATELIMIT_ENABLED", yes_or_no, "true", "Off only behind something that limits by itself."
    )
    ratelimit_register_requests: int = setting(
        "SHM_RATELIMIT_REGISTER_REQUESTS",
        number,
        "120",
        "A minute, for each address: an office of 50 installs behind one registers and activates at once.",
    )
    ratelimit_register_period: timedelta = setting(
        "SHM_RATELIMIT_REGISTER_PERIOD", duration, "1m", "What the requests are for; they come back one by one."
    )
    ratelimit_register_burst: int = setting(
        "SHM_RATELIMIT_REGISTER_BURST", number, "120", "How many of them may come at once."
    )
    ratelimit_snapshot_requests: int = setting(
        "SHM_RATELIMIT_SNAPSHOT_REQUESTS",
        number,
        "1",
        "A minute, for each install: the shortest interval of the clients. Replays do not count.",
    )
    ratelimit_snapshot_period: timedelta = setting(
        "SHM_RATELIMIT_SNAPSHOT_PERIOD", duration, "1m", "What the requests are for; they come back one by one."
    )
    ratelimit_snapshot_burst: int = setting(
        "SHM_RATELIMIT_SNAPSHOT_BURST",
        number,
        "5",
        "An install that is set up or started again a few times is no flood.",
    )
    ratelimit_admin_requests: int = setting(
        "SHM_RATELIMIT_ADMIN_REQUESTS",
        number,
        "600",
        "A minute, for each token: a console that scrolls, a few scripts.",
    )
    ratelimit_admin_period: timedelta = setting(
        "SHM_RATELIMIT_ADMIN_PERIOD", duration, "1m", "What the requests are for; they come back one by one."
    )
    ratelimit_admin_burst: int = setting(
        "SHM_RATELIMIT_ADMIN_BURST", number, "200", "Consoles that come back together after a restart."
    )
    ratelimit_bruteforce_threshold: int = setting(
        "SHM_RATELIMIT_BRUTEFORCE_THRESHOLD", number, "5", "Different bad tokens from an address before it is banned."
    )
    ratelimit_bruteforce_ban: timedelta = setting(
        "SHM_RATELIMIT_BRUTEFORCE_BAN", duration, "15m", "Guessing gets nowhere; tokens that were good go on."
    )
    ratelimit_cleanup_interval: timedelta = setting(
        "SHM_RATELIMIT_CLEANUP_INTERVAL", duration, "10m", "How often budgets that are full again are forgotten."
    )
    trusted_proxies: tuple[Network, ...] = setting(
        "SHM_TRUSTED_PROXIES",
        networks,
        "",
        "Whose X-Forwarded-For is believed. From anybody else it would let a flood look like many.",
    )
    batch: int = setting(
        "SHM_BATCH", number, "1000", "Past a thousand members a batch gains no speed and keeps the first one waiting."
    )
    queue: int = setting(
        "SHM_QUEUE", number, "10000", "Some seconds of intake; past it 503 is honester than a longer wait."
    )
    pool: int = setting(
        "SHM_DB_POOL",
        pool_size,
        "6",
        "For readers; the writer has one of its own. PostgreSQL forks a process for each.",
    )
    statement_timeout: timedelta = setting("SHM_STATEMENT_TIMEOUT", hours, "30s", "Whoever asked has gone by then.")
    database_patience: timedelta = setting(
        "SHM_DB_PATIENCE", duration, "5s", "A restart of PostgreSQL is waited for; a longer absence is told as 503."
    )
    start_patience: timedelta = setting(
        "SHM_START_PATIENCE", duration, "60s", "At the start the database may still be starting too."
    )
    body_timeout: timedelta = setting(
        "SHM_BODY_TIMEOUT",
        duration,
        "15s",
        "A slow line sends 64 KiB in that time; a slower sender holds a connection.",
    )
    idle_timeout: timedelta = setting(
        "SHM_IDLE_TIMEOUT", duration, "75s", "Longer than a proxy's usual 60 s, so that the proxy closes first."
    )
    drain_timeout: timedelta = setting(
        "SHM_DRAIN_TIMEOUT", duration, "20s", "On SIGTERM, what is in flight ends within this; Docker kills after it."
    )
    feed_memory: timedelta = setting(
        "SHM_FEED_MEMORY", duration, "1d", "How long the feed tells of an erased instance; its ID is kept no longer."
    )
    feed_subscribers: int = setting(
        "SHM_FEED_SUBSCRIBERS", number, "2000", "Open feeds of a server process: each costs some 50 KiB, and its share."
    )
    feed_subscribers_of_token: int = setting(
        "SHM_FEED_SUBSCRIBERS_PER_TOKEN",
        number,
        "500",
        "The same for each token: a script that opens them in a loop does not take all of them.",
    )
    metrics_public: bool = setting(
        "SHM_METRICS_PUBLIC",
        yes_or_no,
        "false",
        "Figures of the server are nobody else's business; true where only your monitoring reaches it.",
    )
    heartbeat: timedelta = setting(
        "SHM_FEED_HEARTBEAT", duration, "15s", "Feed pings; a dead peer is found within two of them."
    )
    log_level: str = setting(
        "SHM_LOG_LEVEL",
        log_level,
        "info",
        "Starts, ends and what goes wrong. debug: also each refusal's code, and what libraries say.",
    )

    @classmethod
    def load(cls, environment: Mapping[str, str], flags: Mapping[str, object] | None = None) -> "Settings":
        """Reads the environment; `flags` (by field name, None for not given) override it.

        Raises ConfigurationError with one sentence for an unknown name or a bad value.
        """
        _refuse_unknown(environment)
        chosen: dict[str, object] = {}
        for name, source in sources().items():
            given = (flags or {}).get(name)
            if given is not None:
                chosen[name] = _read("--" + name.replace("_", "-"), str(given), source)
                continue
            spoken = next((variable for variable in source.names if environment.get(variable, "") != ""), None)
            if spoken is not None:
                chosen[name] = _read(spoken, environment[spoken], source)
        settings = cls(**cast(dict[str, Any], chosen))
        settings.refuse_contradictions()
        return settings

    def refuse_contradictions(self) -> None:
        """Raises ConfigurationError for values that are good each for itself but not together."""
        if self.retention < self.max_snapshot_age + self.active_window:
            raise ConfigurationError(
                "SHM_RETENTION is shorter than SHM_MAX_SNAPSHOT_AGE and SHM_ACTIVE_WINDOW together: a late snapshot "
                "would follow on one that is gone, and the past could not be mended."
            )


def sources() -> dict[str, Source]:
    """Each setting's source by its field name, in the order of the class."""
    return {each.name: each.metadata["source"] for each in fields(Settings)}


def add_flags(parser: argparse.ArgumentParser, *only: str) -> None:
    """Gives `parser` a flag for each setting (or only those named), with default, reason and environment name."""
    for each in fields(Settings):
        source: Source = each.metadata["source"]
        if not source.flag or (only and each.name not in only):
            continue
        shown = each.metadata["shown"]
        default = f" Default: {shown}." if shown is not None and each.default is not MISSING else ""
        explained = f"{source.reason}{default} [{', '.join(source.names)}]".replace("%", "%%")
        parser.add_argument("--" + each.name.replace("_", "-"), dest=each.name, metavar="…", help=explained)


def _read(name: str, value: str, source: Source) -> object:
    try:
        return source.read(value)
    except ValueError as error:
        raise ConfigurationError(f"{name}={value!r} cannot be read: wanted is {error}.") from None


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {name for source in sources().values() for name in source.names} | NAMES_OF_OTHERS
    for name in sorted(environment):
        if name.startswith("SHM_") and name not in known and not OF_KUBERNETES.fullmatch(name):
            close = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigurationError(f"{name} is no setting of SHM.{hint} `shm serve --help` lists them all.")
