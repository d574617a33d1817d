"""Reads settings from flags, the environment and the files of secrets.

An unknown name or an invalid value raises ConfigurationError with a sentence.
"""

import difflib
import os
import re
import stat
import time
from collections.abc import Mapping, Set
from pathlib import Path

from shm.core.errors import ConfigurationError
from shm.core.settings.fields import SettingSpec

MAX_SECRET_BYTES = 4096  # a DSN or a token has far fewer
PIPE_TIMEOUT_S = 10.0  # for another process that writes a secret into a pipe
POLL_INTERVAL_S = 0.05
UNDECODABLE = re.compile("[\ud800-\udfff]")  # how Python represents bytes of the environment that are not UTF-8

# Variables that Kubernetes sets in every container of a namespace with a service called shm or shm-something.
KUBERNETES_VARIABLE = re.compile(r"SHM_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_[0-9]+_\w+)?)")

# Variables of the SDK, of the console and of compose.yml. A machine that also runs the server may have them in its
# environment.
OTHER_PROGRAMS_VARIABLES = frozenset(
    {
        "SHM_APP_NAME",
        "SHM_APP_VERSION",
        "SHM_COLLECT_SYSTEM_METRICS",
        "SHM_DEPLOYMENT_MODE",
        "SHM_ENABLED",
        "SHM_ENVIRONMENT",
        "SHM_NAME",  # of compose.yml, as PUBLISH, SUBNET and UPSTREAMS; a container may be given all of .env
        "SHM_PUBLISH",
        "SHM_REPORT_INTERVAL",
        "SHM_SERVER_URL",
        "SHM_SSH_PUBLISH",
        "SHM_SUBNET",
        "SHM_TELEMETRY",
        "SHM_TOKEN",
        "SHM_TOKEN_FILE",
        "SHM_UPSTREAMS",
    }
)


def read_settings(
    specs: Mapping[str, SettingSpec], environment: Mapping[str, str], flags: Mapping[str, object]
) -> dict[str, tuple[str, object]]:
    """Field name -> the flag or variable that sets it, and its value; nothing for a setting that is not set.

    `flags` (by field name; None if absent) override the environment. Raises ConfigurationError.
    """
    values: dict[str, tuple[str, object]] = {}
    for name, spec in specs.items():
        flag = flags.get(name)
        if flag is not None:
            source, value = "--" + name.replace("_", "-"), str(flag)
        elif variable_and_value := _read_variable(spec, environment):
            source, value = variable_and_value
        else:
            continue
        values[name] = source, _parse_setting(source, value, spec)
    return values


def _read_variable(spec: SettingSpec, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The name of the variable that is set and the value, None if none is set. Raises ConfigurationError.

    Spaces and line ends around a value are no part of it: a file of variables may have Windows line ends.
    """
    values = {name: environment.get(name, "").strip() for name in (*spec.variables, *spec.file_variables)}
    set_variables = [name for name in spec.variables if values[name]]
    set_files = [name for name in spec.file_variables if values[name]]
    if set_variables and set_files:
        raise ConfigurationError(f"{set_variables[0]} and {set_files[0]} are both set. Set one of them.")
    if set_files:
        return set_files[0], _read_secret(set_files[0], Path(values[set_files[0]]))
    return (set_variables[0], values[set_variables[0]]) if set_variables else None


def _parse_setting(name: str, value: str, spec: SettingSpec) -> object:
    """The value of a setting. `name` is its variable or flag. Raises ConfigurationError."""
    if UNDECODABLE.search(value):
        raise ConfigurationError(f"{name} is invalid: it is not a text in UTF-8.")
    try:
        return spec.parse(value)
    except ValueError as error:
        shown = name if spec.is_secret else f"{name}={value!r}"
        raise ConfigurationError(f"{shown} is invalid: expected {error}.") from None


def _read_secret(variable: str, file: Path) -> str:
    """The content of a secret's file, without spaces and line ends around it. Raises ConfigurationError."""
    try:
        content = _read_limited(file, MAX_SECRET_BYTES + 1)
        value = content.decode("utf-8-sig").strip()  # without the byte order mark that some editors write
    except (OSError, ValueError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or "it is not a text in UTF-8"
        raise ConfigurationError(f"The file {file} of {variable} cannot be read: {problem}.") from None
    if not value or len(content) > MAX_SECRET_BYTES:
        raise ConfigurationError(f"The file {file} of {variable} is empty or has more than {MAX_SECRET_BYTES} bytes.")
    if "\0" in value:
        raise ConfigurationError(f"The file {file} of {variable} cannot be read: it is not a text.")
    return value


def _read_limited(file: Path, limit: int) -> bytes:
    """The first bytes of a file or of a pipe. Waits `PIPE_TIMEOUT_S` at most for what another process writes to it."""
    deadline = time.monotonic() + PIPE_TIMEOUT_S
    content = b""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as stream:
        is_pipe = stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
        while len(content) < limit:
            chunk = stream.read(limit - len(content))  # None: nothing yet
            if chunk:
                content += chunk
            elif (chunk == b"" and (content or not is_pipe)) or time.monotonic() > deadline:
                break
            else:
                time.sleep(POLL_INTERVAL_S)
    return content


def check_names(environment: Mapping[str, str], known: Set[str]) -> None:
    """Raises ConfigurationError for a variable that begins with `SHM_` and is not known, with the most similar name."""
    known = known | OTHER_PROGRAMS_VARIABLES
    for name in sorted(environment):
        if name.startswith("SHM_") and name not in known and not KUBERNETES_VARIABLE.fullmatch(name):
            matches = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {matches[0]}?" if matches else ""
            raise ConfigurationError(f"{name} is not a setting of SHM.{hint} `shm serve --help` lists all settings.")
