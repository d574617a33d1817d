"""All settings of the server, with name, default and reason. `shm ssh` has some of its own.

`Settings.load` reads the environment, and flags override it. An unknown `SHM_` name or a value that
cannot be parsed ends the start with an error, because a misspelt limit would otherwise have no effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from shm.core.data_directory import default_data_dir
from shm.core.errors import ConfigurationError
from shm.core.metric_words import MetricWords, read_metric_words
from shm.core.settings.fields import setting, setting_specs
from shm.core.settings.parsers import (
    Network,
    parse_activation,
    parse_base_url,
    parse_bearer_token,
    parse_bool,
    parse_count,
    parse_duration,
    parse_duration_or_zero,
    parse_duration_up_to_a_day,
    parse_headers_size,
    parse_host,
    parse_indexed_length,
    parse_log_level,
    parse_networks,
    parse_path,
    parse_pool_size,
    parse_port,
    parse_positive_int,
    parse_size,
    parse_slugs,
    parse_text,
    parse_words,
)
from shm.core.settings.sources import check_names, read_settings
from shm.core.settings.ssh import SshSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, parsed and validated. Durations are timedeltas, sizes are bytes."""

    # Network.
    host: str = setting(
        "SHM_HOST",
        parse_host,
        "127.0.0.1",
        "Address to listen on. The default is reachable from this machine only, so that nothing is public by accident. "
        "`0.0.0.0` is all addresses of IPv4, `::` or `*` all of IPv6 and IPv4.",
    )
    port: int = setting("PORT", parse_port, "8080", "Port to listen on. The original server's default.")
    workers: int = setting(
        "SHM_WORKERS",
        parse_positive_int,
        "1",
        "Server processes behind one port. A process uses one core, so more cores take in more snapshots "
        "with more processes.",
    )
    tls_cert: Path | None = setting(
        "SHM_TLS_CERT",
        parse_path,
        None,
        "Certificate with its chain, in PEM, for TLS without a proxy. A renewed file is used within seconds, without a "
        "restart. With a proxy, which ends TLS itself, leave it empty.",
    )
    tls_key: Path | None = setting(
        "SHM_TLS_KEY",
        parse_path,
        None,
        "Key of the certificate, in PEM, without a passphrase. Only the user that runs the server should be able to "
        "read it.",
    )
    trusted_proxies: tuple[Network, ...] = setting(
        "SHM_TRUSTED_PROXIES",
        parse_networks,
        "",
        "Addresses or networks whose X-Forwarded-For is used, separated by commas. From any other sender "
        "the header would let one flood appear as many addresses.",
    )

    # Database.
    dsn: str | None = setting(
        "SHM_DB_DSN DATABASE_URL",
        parse_text,
        None,
        "PostgreSQL to use, as a URL or as key=value pairs. Without one, the server starts an embedded "
        "PostgreSQL. Put a password into the environment and not into the flag: other users see command "
        "lines.",
        is_secret=True,
    )
    dsn_source: str = "SHM_DB_DSN"
    """The variable or flag that `dsn` comes from, for messages. Not a setting."""
    data_dir: Path = setting(
        "SHM_DATA_DIR",
        parse_path,
        default_data_dir(),
        "Directory of the embedded PostgreSQL and of admin.token. (The SDK reads the same variable for "
        "the directory of its identity: set it for each of them separately.)",
    )
    batch: int = setting(
        "SHM_BATCH",
        parse_positive_int,
        "1000",
        "Snapshots in one transaction. Beyond a thousand a batch gains no speed and delays its first snapshot.",
    )
    queue: int = setting(
        "SHM_QUEUE",
        parse_positive_int,
        "10000",
        "Snapshots that wait for a batch, as many registrations and activations, and statements and keys that wait for "
        "a connection. They are some seconds of intake; beyond them a 503 is better than a longer wait.",
    )
    pool: int = setting(
        "SHM_DB_POOL",
        parse_pool_size,
        "6",
        "Connections to PostgreSQL, in each process, for all but registrations, activations and snapshots, which have "
        "one. PostgreSQL starts a process for each connection.",
    )
    statement_timeout: timedelta = setting(
        "SHM_STATEMENT_TIMEOUT",
        parse_duration_up_to_a_day,
        "30s",
        "Time limit of a statement. Clients have given up by then.",
    )
    database_patience: timedelta = setting(
        "SHM_DB_PATIENCE",
        parse_duration,
        "5s",
        "How long a request waits for an unavailable database before it is answered 503. It covers a "
        "restart of PostgreSQL.",
    )
    start_patience: timedelta = setting(
        "SHM_START_PATIENCE",
        parse_duration,
        "60s",
        "How long the start waits for the database, which may be starting too.",
    )

    # Access.
    admin_token: str | None = setting(
        "SHM_ADMIN_TOKEN",
        parse_text,
        None,
        "The server's own admin token. Without one, the first start creates one in the data directory.",
        has_flag=False,
        is_secret=True,
    )
    public_min_instances: int = setting(
        "SHM_PUBLIC_MIN_INSTANCES",
        parse_count,
        "5",
        "Badges show a figure if at least as many installs are in it. A figure over fewer would tell about "
        "single ones.",
    )
    github_token: str | None = setting(
        "GITHUB_TOKEN",
        parse_bearer_token,
        None,
        "A token of GitHub, for more than 60 refreshes of stars an hour. It needs no permission.",
        has_flag=False,
        is_secret=True,
    )
    github_api: str = setting(
        "SHM_GITHUB_API",
        parse_base_url,
        "https://api.github.com",
        "GitHub's API, which is asked for the stars of the repositories that admins have set: every hour, and when an "
        "admin refreshes them.",
    )
    max_tokens: int = setting(
        "SHM_MAX_TOKENS",
        parse_positive_int,
        "1000",
        "Number of API tokens, expired ones included. One for each person and script stays far below it. The "
        "limit stops a script that creates tokens in a loop.",
    )
    applications: frozenset[str] = setting(
        "SHM_APPLICATIONS",
        parse_slugs,
        "",
        "Names or slugs of the applications whose installs may register, separated by commas. Empty: any. With a "
        "list nobody can invent an application.",
    )
    activation: str = setting(
        "SHM_ACTIVATION",
        parse_activation,
        "tofu",
        "Who may report. tofu: the first key seen for an ID owns that ID and is accepted at once. manual: "
        "an admin approves each install, and its snapshots are refused until then.",
    )
    metrics_public: bool = setting(
        "SHM_METRICS_PUBLIC",
        parse_bool,
        "false",
        "Whether GET /metrics is served without a token. Set it to true where only your monitoring reaches the server.",
    )

    # Definitions and retention.
    active_window: timedelta = setting(
        "SHM_ACTIVE_WINDOW",
        parse_duration,
        "30d",
        "An install is active while its last signed request is younger than this. A month covers holidays "
        "and long restarts.",
    )
    uncounted_environments: frozenset[str] = setting(
        "SHM_UNCOUNTED_ENVIRONMENTS",
        parse_words,
        "dev,development,test,testing,ci,local",
        "Environments that are shown beside the headline and not counted in it. Machines of developers "
        "are not customers.",
    )
    max_snapshot_age: timedelta = setting(
        "SHM_MAX_SNAPSHOT_AGE",
        parse_duration,
        "30d",
        "Oldest timestamp of a snapshot that is accepted. A client's backlog may be a month old; an older "
        "snapshot changes no figure that is shown.",
    )
    max_clock_skew: timedelta = setting(
        "SHM_MAX_CLOCK_SKEW",
        parse_duration,
        "5m",
        "How far ahead of the server's clock a timestamp may be, and the timestamp of a signed action also behind "
        "it. Clocks differ; a snapshot from further ahead would remain the newest for a long time.",
    )
    retention: timedelta = setting(
        "SHM_RETENTION",
        parse_duration,
        "90d",
        "How long raw snapshots are kept. They show an install's past and prove the figures; charts are "
        "kept for good and do not need them.",
    )
    max_disk: int | None = setting(
        "SHM_MAX_DISK",
        parse_size,
        None,
        "Size that the database may reach. It refuses nothing: the server predicts when the size will be reached, and "
        "warns two weeks before. Without it, the prediction is for the disk of an embedded PostgreSQL; the disk of "
        "another PostgreSQL is unknown.",
    )
    max_keys: int = setting(
        "SHM_MAX_KEYS",
        parse_positive_int,
        "1000",
        "Keys of an application that are aggregated. Further keys are stored with their snapshots and are in no "
        "figure, so that invented keys cannot fill the database. Keys for which you made a setting are always "
        "aggregated.",
    )
    max_values: int = setting(
        "SHM_MAX_VALUES",
        parse_positive_int,
        "500",
        "Values of a string that are aggregated, for each key of an application. The API shows the 20 most frequent; "
        "a string that differs in each install is no category.",
    )
    max_all_values: int = setting(
        "SHM_MAX_ALL_VALUES",
        parse_positive_int,
        "10000",
        "Values of strings that are aggregated, over all keys of an application. A hundred categories of a hundred "
        "values each stay below it; SHM_MAX_VALUES alone would allow half a million of them.",
    )
    max_versions: int = setting(
        "SHM_MAX_VERSIONS",
        parse_positive_int,
        "500",
        "Versions of an application that are counted one by one. Installs of further versions are counted together, as "
        "`other`, so that invented versions cannot fill the database. A version that nobody uses gives its place to a "
        "new one.",
    )
    metric_words: MetricWords | None = setting(
        "SHM_METRIC_WORDS",
        read_metric_words,
        None,
        "File with the words of keys that decide a metric's kind, aggregate and unit, in the form of "
        "shm/core/metric_words.toml, whose members it replaces. Without it, the built-in words apply. For a vendor "
        "whose keys use other words than English ones in all applications.",
    )
    pending_age: timedelta = setting(
        "SHM_PENDING_AGE",
        parse_duration,
        "1d",
        "An instance that has not proved its key is removed after this time. A client that works proves "
        "it within seconds.",
    )

    # Sizes and times of requests.
    max_new_installs: int = setting(
        "SHM_MAX_NEW_INSTALLS",
        parse_positive_int,
        "1000",
        "New installs in an hour, from all addresses. Further ones of that hour wait for approval by an admin, as with "
        "SHM_ACTIVATION=manual, so that no flood of inventions gets into the figures.",
    )
    max_new_applications: int = setting(
        "SHM_MAX_NEW_APPLICATIONS",
        parse_positive_int,
        "50",
        "New applications in an hour, from all addresses. A new install of a further one waits for approval by an "
        "admin, and a known install stays in its application. A vendor rarely has more products than that.",
    )
    max_new_installs_per_address: int = setting(
        "SHM_MAX_NEW_INSTALLS_PER_ADDRESS",
        parse_positive_int,
        "300",
        "New installs from one address in an hour. An office or a cluster behind one address stays far below it.",
    )
    max_bytes_per_address: int = setting(
        "SHM_MAX_BYTES_PER_ADDRESS",
        parse_size,
        "256m",
        "Bytes of new snapshots from one address in an hour. A hundred thousand hourly snapshots of 2 KiB each; one "
        "sender cannot fill the disk.",
    )
    max_body: int = setting(
        "SHM_MAX_BODY",
        parse_size,
        "64k",
        "Size of a request's body. Three times the largest realistic snapshot (256 metrics with long keys).",
    )
    max_reading: int = setting(
        "SHM_MAX_READING",
        parse_size,
        "256m",
        "Size of all requests in memory, together: headers until they are complete, bodies until they are answered. "
        "Beyond it the longest incomplete one is refused, so that many open uploads cannot fill the memory.",
    )
    max_unread: int = setting(
        "SHM_MAX_UNREAD",
        parse_size,
        "256m",
        "Size of all responses and messages of feeds in memory that their clients have not read yet, together. Beyond "
        "it the connection whose client has read nothing for the longest is closed. One response may be larger.",
    )
    max_headers: int = setting(
        "SHM_MAX_HEADERS",
        parse_headers_size,
        "16k",
        "Size of a request's headers. Ten times the headers of a client and a proxy together.",
    )
    max_name: int = setting(
        "SHM_MAX_NAME",
        parse_indexed_length,
        "256",
        "Characters in the name of an application, a version or an environment. Tables show far fewer.",
    )
    max_backlog: int = setting(
        "SHM_MAX_BACKLOG",
        parse_positive_int,
        "100",
        "Snapshots in one backlog request. Four days of hourly snapshots; a longer outage takes several requests.",
    )
    max_backlog_body: int = setting(
        "SHM_MAX_BACKLOG_BODY", parse_size, "1m", "Size of a backlog's body. A hundred snapshots of a few KiB each."
    )
    max_metrics: int = setting(
        "SHM_MAX_METRICS",
        parse_positive_int,
        "256",
        "Values in one snapshot. More values are records and not aggregate counters.",
    )
    max_depth: int = setting(
        "SHM_MAX_DEPTH",
        parse_positive_int,
        "8",
        "Levels of nesting in a snapshot. People read a group within a group, and not a tree.",
    )
    max_key: int = setting(
        "SHM_MAX_KEY",
        parse_indexed_length,
        "128",
        "Characters in a metric's key, its groups and dots included. A key is a column's title and has to fit one.",
    )
    max_text: int = setting(
        "SHM_MAX_TEXT",
        parse_positive_int,
        "1024",
        "Characters in a string of a snapshot. Enough for a label or a version, and not for a document.",
    )
    header_timeout: timedelta = setting(
        "SHM_HEADER_TIMEOUT",
        parse_duration,
        "10s",
        "Time for a request's headers to arrive, and for a new connection to send its first request. Clients send "
        "them at once; a slower sender only occupies a connection.",
    )
    body_timeout: timedelta = setting(
        "SHM_BODY_TIMEOUT",
        parse_duration,
        "15s",
        "Time for a request's body to arrive. A slow line sends 64 KiB in that time; a slower sender "
        "occupies a connection.",
    )
    idle_timeout: timedelta = setting(
        "SHM_IDLE_TIMEOUT",
        parse_duration,
        "75s",
        "How long an idle connection stays open. Longer than the usual 60 s of a proxy, so that the proxy "
        "closes it first.",
    )
    max_connections: int = setting(
        "SHM_MAX_CONNECTIONS",
        parse_positive_int,
        "10000",
        "Open connections of one server process, or fewer where its limit of open files is lower. An idle one costs "
        "some 9 KiB of memory. At the limit a new connection replaces the one that has waited the longest for its "
        "client.",
    )
    max_connections_per_address: int = setting(
        "SHM_MAX_CONNECTIONS_PER_ADDRESS",
        parse_positive_int,
        "512",
        "The same for one address, at most half of all, so that no single sender uses up all connections. A large "
        "office behind one address stays below it. SHM_TRUSTED_PROXIES are exempt; all clients behind another proxy "
        "share it.",
    )

    # Rate limits.
    ratelimit_enabled: bool = setting(
        "SHM_RATELIMIT_ENABLED",
        parse_bool,
        "true",
        "Whether rate limits apply. Switch them off only behind a proxy that limits requests itself.",
    )
    ratelimit_register_requests: int = setting(
        "SHM_RATELIMIT_REGISTER_REQUESTS",
        parse_count,
        "120",
        "Register, activate and signed actions for each address and period. An office with 50 installs "
        "behind one address registers and activates them at once.",
    )
    ratelimit_register_period: timedelta = setting(
        "SHM_RATELIMIT_REGISTER_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these requests. The budget refills steadily and not at the period's end.",
    )
    ratelimit_register_burst: int = setting(
        "SHM_RATELIMIT_REGISTER_BURST",
        parse_count,
        "120",
        "How many of these requests may arrive at the same moment.",
    )
    ratelimit_snapshot_requests: int = setting(
        "SHM_RATELIMIT_SNAPSHOT_REQUESTS",
        parse_count,
        "1",
        "New snapshots for each install and period. One a minute is the shortest interval of the clients. "
        "Repeated snapshots do not count.",
    )
    ratelimit_snapshot_period: timedelta = setting(
        "SHM_RATELIMIT_SNAPSHOT_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these snapshots. The budget refills steadily and not at the period's end.",
    )
    ratelimit_snapshot_burst: int = setting(
        "SHM_RATELIMIT_SNAPSHOT_BURST",
        parse_count,
        "5",
        "How many of them may arrive at the same moment. An install that restarts a few times stays below it.",
    )
    ratelimit_failed_requests: int = setting(
        "SHM_RATELIMIT_FAILED_REQUESTS",
        parse_count,
        "600",
        "Snapshots with a bad signature, of an unknown instance, or repeated, for each address and period. Beyond it "
        "they cost a few statements a second in all, and only known installs with a valid signature are accepted from "
        "the address.",
    )
    ratelimit_failed_period: timedelta = setting(
        "SHM_RATELIMIT_FAILED_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these requests. The budget refills steadily and not at the period's end.",
    )
    ratelimit_failed_burst: int = setting(
        "SHM_RATELIMIT_FAILED_BURST",
        parse_count,
        "600",
        "How many of them may arrive at the same moment, for example from a fleet that repeats itself after an outage.",
    )
    ratelimit_unauthenticated_requests: int = setting(
        "SHM_RATELIMIT_UNAUTHENTICATED_REQUESTS",
        parse_count,
        "1200",
        "Requests for each address and period that have no valid token (badges, health checks, unknown paths) or are "
        "refused ones of installs. Monitors and the readers of a page with badges stay far below it.",
    )
    ratelimit_unauthenticated_period: timedelta = setting(
        "SHM_RATELIMIT_UNAUTHENTICATED_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these requests. The budget refills steadily and not at the period's end.",
    )
    ratelimit_unauthenticated_burst: int = setting(
        "SHM_RATELIMIT_UNAUTHENTICATED_BURST",
        parse_count,
        "200",
        "How many of them may arrive at the same moment. They take the server a tenth of a second.",
    )
    ratelimit_admin_requests: int = setting(
        "SHM_RATELIMIT_ADMIN_REQUESTS",
        parse_count,
        "600",
        "Requests for each API token and period. A console that scrolls and a few scripts stay below it.",
    )
    ratelimit_admin_period: timedelta = setting(
        "SHM_RATELIMIT_ADMIN_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these requests. The budget refills steadily and not at the period's end.",
    )
    ratelimit_admin_burst: int = setting(
        "SHM_RATELIMIT_ADMIN_BURST",
        parse_count,
        "200",
        "How many of them may arrive at the same moment, for example from consoles that reconnect after a restart.",
    )
    ratelimit_bruteforce_threshold: int = setting(
        "SHM_RATELIMIT_BRUTEFORCE_THRESHOLD",
        parse_count,
        "5",
        "Different invalid tokens from one address before the address is banned.",
    )
    ratelimit_bruteforce_ban: timedelta = setting(
        "SHM_RATELIMIT_BRUTEFORCE_BAN",
        parse_duration_or_zero,
        "15m",
        "Length of that ban. It makes guessing slow and cheap for the server. Valid tokens continue to work from "
        "the address.",
    )
    ratelimit_cleanup_interval: timedelta = setting(
        "SHM_RATELIMIT_CLEANUP_INTERVAL",
        parse_duration_or_zero,
        "10m",
        "How often full budgets and ended bans are removed from memory.",
    )

    # Change feed.
    feed_memory: timedelta = setting(
        "SHM_FEED_MEMORY",
        parse_duration,
        "1d",
        "How long the feed remembers the IDs of removed instances. A subscriber that returns later lists "
        "again. The ID is stored no longer than that.",
    )
    feed_subscribers: int = setting(
        "SHM_FEED_SUBSCRIBERS",
        parse_positive_int,
        "2000",
        "Open feeds of one server process. Each costs some 50 KiB of memory and a share of the processor.",
    )
    feed_subscribers_of_token: int = setting(
        "SHM_FEED_SUBSCRIBERS_PER_TOKEN",
        parse_positive_int,
        "500",
        "Open feeds of one token in one server process. A script that opens feeds in a loop cannot use up all of them.",
    )
    heartbeat: timedelta = setting(
        "SHM_FEED_HEARTBEAT",
        parse_duration,
        "15s",
        "Interval of the feed's pings. A dead connection is detected within two of them.",
    )

    # Stop and log.
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

    @classmethod
    def load(cls, environment: Mapping[str, str], flags: Mapping[str, object] | None = None) -> "Settings":
        """Reads the environment. `flags` (by field name; None if absent) override it.

        Raises ConfigurationError with one sentence for an unknown name or an invalid value.
        """
        specs = [*setting_specs(cls).values(), *setting_specs(SshSettings).values()]
        check_names(environment, {name for spec in specs for name in (*spec.variables, *spec.file_variables)})
        read = read_settings(setting_specs(cls), environment, flags or {})
        values: dict[str, object] = {name: value for name, (_, value) in read.items()}
        if "dsn" in read:
            values["dsn_source"] = read["dsn"][0]
        settings = cls(**cast(dict[str, Any], values))
        settings.check_consistency()
        return settings

    def check_consistency(self) -> None:
        """Raises ConfigurationError for values that contradict each other."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("SHM_TLS_CERT and SHM_TLS_KEY belong together: set both, or none.")
        if self.retention < self.max_snapshot_age + self.active_window:
            raise ConfigurationError(
                "SHM_RETENTION is shorter than SHM_MAX_SNAPSHOT_AGE plus SHM_ACTIVE_WINDOW: the snapshots that are "
                "needed to correct charts after a late snapshot would already be deleted."
            )
