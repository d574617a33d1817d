"""Whether telemetry may run at all. Pure: reads the environment it is handed, touches neither disk nor network.

It is asked before anything else, and again before every report, so a refusal needs no restart to count.
"""

from collections.abc import Mapping

OFF_WORDS = frozenset({"off", "false", "no", "0"})
ON_WORDS = frozenset({"on", "true", "yes", "1"})


def refusal(enabled: object, environment: Mapping[str, str]) -> str | None:
    """Why telemetry is off, or None where it may run. `enabled` is the Client's argument, None where not given.

    A wish that cannot be read counts as a refusal: the mistake then costs the vendor a row and nobody their privacy.
    """
    if environment.get("DO_NOT_TRACK", "") not in ("", "0"):
        return "DO_NOT_TRACK is set"
    if environment.get("SHM_TELEMETRY", "").strip().lower() in OFF_WORDS:
        return "SHM_TELEMETRY turns it off"
    if enabled is not None:
        return None if switch(enabled) else "enabled is not true"
    said = environment.get("SHM_ENABLED", "").strip()
    return None if not said or switch(said) else "SHM_ENABLED is not true"


def switch(value: object) -> bool | None:
    """True or False for a bool or a word that means one, None for anything else."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    return True if word in ON_WORDS else False if word in OFF_WORDS else None
