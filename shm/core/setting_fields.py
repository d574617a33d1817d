"""The definition of a field of `shm.core.settings.Settings`: variables, parser, default and reason.

An unknown name or an invalid value raises ConfigurationError with a sentence.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from shm.core.errors import ConfigurationError

# Variables that Kubernetes sets in every container of a namespace with a service called shm or shm-something.
KUBERNETES_VARIABLE = re.compile(r"SHM_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_[0-9]+_\w+)?)")

# Variables of the SDK and of the console. A machine that also runs the server may have them in its environment.
OTHER_PROGRAMS_VARIABLES = frozenset(
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
class SettingSpec:
    """The definition of a setting. `variables` are its environment variables by precedence.

    `reason` describes the setting and gives the reason for its default.
    """

    variables: tuple[str, ...]
    parse: Callable[[str], object]
    reason: str
    has_flag: bool = True


def setting(
    variables: str, parse: Callable[[str], Any], default: str | None, reason: str, *, has_flag: bool = True
) -> Any:
    """A field of Settings. `default` is a text and parsed like a value from the environment."""
    spec = SettingSpec(tuple(variables.split()), parse, reason, has_flag)
    return field(default=None if default is None else parse(default), metadata={"spec": spec, "default_text": default})


def parse_setting(name: str, value: str, spec: SettingSpec) -> object:
    """The value of a setting. `name` is its variable or flag. Raises ConfigurationError."""
    try:
        return spec.parse(value)
    except ValueError as error:
        raise ConfigurationError(f"{name}={value!r} is invalid: expected {error}.") from None


def check_names(environment: Mapping[str, str], known: Set[str]) -> None:
    """Raises ConfigurationError for a variable that begins with `SHM_` and is not known, with the most similar name."""
    known = known | OTHER_PROGRAMS_VARIABLES
    for name in sorted(environment):
        if name.startswith("SHM_") and name not in known and not KUBERNETES_VARIABLE.fullmatch(name):
            matches = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {matches[0]}?" if matches else ""
            raise ConfigurationError(f"{name} is not a setting of SHM.{hint} `shm serve --help` lists all settings.")
