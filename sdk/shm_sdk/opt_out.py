"""The opt-out: whether a variable or an argument turns telemetry off. Pure: uses neither disk nor network.

The check comes before everything else and before each report, so a change of the environment applies at once.
"""

from collections.abc import Mapping

from shm_sdk.names import telemetry_variable

FALSE_WORDS = frozenset({"off", "false", "no", "0"})
TRUE_WORDS = frozenset({"on", "true", "yes", "1", "enabled"})


def opt_out_reason(enabled: object, environment: Mapping[str, str], app_name: str = "") -> str | None:
    """Why telemetry is off, or None where it may run. `enabled` is the Client's argument, or None without it.

    A value that is not clearly on counts as off: a mistake then costs a report and never privacy.
    """
    if unquote(environment.get("DO_NOT_TRACK", "")) not in ("", "0"):
        return "DO_NOT_TRACK is set"
    app_name = app_name or environment.get("SHM_APP_NAME", "")
    for variable in ("SHM_TELEMETRY", telemetry_variable(app_name) if app_name else ""):
        word = unquote(environment.get(variable, ""))
        if word and not parse_bool(word):
            return f"{variable} turns it off"
    if enabled is not None:
        return None if parse_bool(enabled) else "enabled is not true"
    word = unquote(environment.get("SHM_ENABLED", ""))
    return None if not word or parse_bool(word) else "SHM_ENABLED is not true"


def parse_bool(value: object) -> bool | None:
    """True or False for a bool or a word for one, None for anything else."""
    if isinstance(value, bool):
        return value
    try:
        word = unquote(str(value)).lower()
    except Exception:  # an object of the host that raises when it is read
        return None
    return True if word in TRUE_WORDS else False if word in FALSE_WORDS else None


def unquote(value: str) -> str:
    """A variable without the spaces and quotes around it: `docker --env-file` keeps quotes as part of the value."""
    return value.strip().strip("'\"").strip()
