"""All settings of the server: its groups, how they are read, and what they must not contradict.

An unknown `SHM_` name or a value that cannot be parsed ends the start with an error, because a misspelt limit would
otherwise have no effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from shm.core.errors import ConfigurationError
from shm.core.settings.access import AccessSettings
from shm.core.settings.database import DatabaseSettings
from shm.core.settings.definitions import DefinitionSettings
from shm.core.settings.feed import FeedSettings
from shm.core.settings.fields import setting_specs
from shm.core.settings.network import NetworkSettings
from shm.core.settings.rate_limits import RateLimitSettings
from shm.core.settings.requests import RequestSettings
from shm.core.settings.sources import check_names, read_settings
from shm.core.settings.ssh import SshSettings
from shm.core.settings.stop_and_log import StopAndLogSettings


@dataclass(frozen=True, kw_only=True)
class Settings(
    # A dataclass has the fields of its last base first: these are in the order of docs/operating.md from below.
    StopAndLogSettings,
    FeedSettings,
    RateLimitSettings,
    RequestSettings,
    DefinitionSettings,
    AccessSettings,
    DatabaseSettings,
    NetworkSettings,
):
    """All settings, parsed and validated. Durations are timedeltas, sizes are bytes."""

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
