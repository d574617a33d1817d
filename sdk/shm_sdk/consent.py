"""Decides whether telemetry may run. Pure: reads the passed environment only, and uses neither disk nor network.

The check comes before everything else and before each report, so a change of the environment applies at once.
"""

from collections.abc import Mapping

FALSE_WORDS = frozenset({"off", "false", "no", "0"})
TRUE_WORDS = frozenset({"on", "true", "yes", "1"})


def opt_out_reason(enabled: object, environment: Mapping[str, str]) -> str | None:
    """Why telemetry is off, or None where it may run. `enabled` is the Client's argument, or None without it.

    An unreadable value of `enabled` or SHM_ENABLED counts as off: a mistake then costs a report and never privacy.
    """
    if environment.get("DO_NOT_TRACK", "") not in ("", "0"):
        return "DO_NOT_TRACK is set"
    if environment.get("SHM_TELEMETRY", "").strip().lower() in FALSE_WORDS:
        return "SHM_TELEMETRY turns it off"
    if enabled is not None:
        return None if parse_bool(enabled) else "enabled is not true"
    variable = environment.get("SHM_ENABLED", "").strip()
    return None if not variable or parse_bool(variable) else "SHM_ENABLED is not true"


def parse_bool(value: object) -> bool | None:
    """True or False for a bool or a word for one, None for anything else."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    return True if word in TRUE_WORDS else False if word in FALSE_WORDS else None


def unquote(value: str) -> str:
    """A variable without the spaces and quotes around it: `docker --env-file` keeps quotes as part of the value."""
    return value.strip().strip("'\"").strip()
