"""The definition of a field of `shm.core.settings.Settings`: variables, parser, default and reason.

An unknown name or an invalid value raises ConfigurationError with a sentence.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shm.core.errors import ConfigurationError

MAX_SECRET_LENGTH = 4096  # characters; a DSN or a token has far fewer

# Variables that Kubernetes sets in every container of a namespace with a service called shm or shm-something.
KUBERNETES_VARIABLE = re.compile(r"SHM_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_[0-9]+_\w+)?)")

# Variables of the SDK, of the console and of compose.yml. A machine that also runs the server may have them in its
# environment.
OTHER_PROGRAMS_VARIABLES = frozenset(
    {
        "SHM_APP_NAME",
        "SHM_APP_VERSION",
        "SHM_COLLECT_SYSTEM_METRICS",
        "SHM_DB_PASSWORD",  # of compose.yml, whose .env may be given to the container as a whole
        "SHM_DEPLOYMENT_MODE",
        "SHM_ENABLED",
        "SHM_ENVIRONMENT",
        "SHM_PUBLISH",  # of compose.yml
        "SHM_REPORT_INTERVAL",
        "SHM_SERVER",
        "SHM_SERVER_URL",
        "SHM_TELEMETRY",
        "SHM_TOKEN",
        "SHM_TOKEN_FILE",
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
    is_secret: bool = False

    @property
    def file_variables(self) -> tuple[str, ...]:
        """Variables that name a file with the value. Only secrets have them."""
        return tuple(f"{name}_FILE" for name in self.variables) if self.is_secret else ()

    def read(self, environment: Mapping[str, str]) -> tuple[str, str] | None:
        """The name of the variable that is set and the value, None if none is set. Raises ConfigurationError."""
        set_variables = [name for name in self.variables if environment.get(name, "") != ""]
        set_files = [name for name in self.file_variables if environment.get(name, "") != ""]
        if set_variables and set_files:
            raise ConfigurationError(f"{set_variables[0]} and {set_files[0]} are both set. Set one of them.")
        if set_files:
            return set_files[0], _read_secret(set_files[0], Path(environment[set_files[0]]))
        return (set_variables[0], environment[set_variables[0]]) if set_variables else None


def setting(
    variables: str,
    parse: Callable[[str], Any],
    default: str | None,
    reason: str,
    *,
    has_flag: bool = True,
    is_secret: bool = False,
) -> Any:
    """A field of Settings. `default` is a text and parsed like a value from the environment."""
    spec = SettingSpec(tuple(variables.split()), parse, reason, has_flag, is_secret)
    return field(default=None if default is None else parse(default), metadata={"spec": spec, "default_text": default})


def parse_setting(name: str, value: str, spec: SettingSpec) -> object:
    """The value of a setting. `name` is its variable or flag. Raises ConfigurationError."""
    try:
        return spec.parse(value)
    except ValueError as error:
        shown = name if spec.is_secret else f"{name}={value!r}"
        raise ConfigurationError(f"{shown} is invalid: expected {error}.") from None


def _read_secret(variable: str, file: Path) -> str:
    """The content of a secret's file, without the line break at its end. Raises ConfigurationError."""
    try:
        with file.open(encoding="utf-8") as stream:
            value = stream.read(MAX_SECRET_LENGTH + 1)
    except (OSError, ValueError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or "it is not a text in UTF-8"
        raise ConfigurationError(f"The file {file} of {variable} cannot be read: {problem}.") from None
    value = value.rstrip("\r\n")
    if not value or len(value) > MAX_SECRET_LENGTH:
        raise ConfigurationError(
            f"The file {file} of {variable} is empty or has more than {MAX_SECRET_LENGTH} characters."
        )
    return value


def check_names(environment: Mapping[str, str], known: Set[str]) -> None:
    """Raises ConfigurationError for a variable that begins with `SHM_` and is not known, with the most similar name."""
    known = known | OTHER_PROGRAMS_VARIABLES
    for name in sorted(environment):
        if name.startswith("SHM_") and name not in known and not KUBERNETES_VARIABLE.fullmatch(name):
            matches = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {matches[0]}?" if matches else ""
            raise ConfigurationError(f"{name} is not a setting of SHM.{hint} `shm serve --help` lists all settings.")
