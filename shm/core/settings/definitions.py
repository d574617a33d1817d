"""What counts as active, what is aggregated, and how long data are kept."""

from dataclasses import dataclass
from datetime import timedelta

from shm.core.metric_words import MetricWords, read_metric_words
from shm.core.settings.fields import setting
from shm.core.settings.parsers import parse_duration, parse_positive_int, parse_size, parse_words


@dataclass(frozen=True, kw_only=True)
class DefinitionSettings:
    """Definitions and retention."""

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
