"""The end user's actions as methods of the Client. `python -m shm_sdk` and a host's commands call these.

The code is in `shm_sdk.actions`, which is imported on the first call: a host may fork in another thread meanwhile.
"""

from typing import TYPE_CHECKING

from shm_sdk import forking

if TYPE_CHECKING:
    from shm_sdk.actions import ActionResult, Status
    from shm_sdk.components import Components
    from shm_sdk.outcome import Outcome, Preview

ACTION_TIMEOUT_S = 10.0  # for the report of `check`, during which a person waits
LONG_ACTION_TIMEOUT_S = 120.0  # the server deletes or sends a long history in pages


class Controls:
    """The user's controls of one application's telemetry."""

    _arguments: "dict[str, object]"
    _enabled: object
    _components: "Components"

    if TYPE_CHECKING:

        def report_now(self, timeout: float = ACTION_TIMEOUT_S) -> "Outcome": ...

    def preview(self) -> "Preview":
        """Exactly what a report would send now, made by the code that sends it. Sends nothing.

        Raises ConfigurationError where a setting is wrong, as the other methods here do.
        """
        with forking.import_lock:
            from shm_sdk import actions

        return actions.preview(self)

    def status(self) -> "Status":
        """Whether telemetry is on and why, what the user chose, and which install this is. Uses no network."""
        with forking.import_lock:
            from shm_sdk import actions

        return actions.status(self)

    def check(self, timeout: float = ACTION_TIMEOUT_S) -> "ActionResult":
        """Sends one report, and describes the response of the server."""
        with forking.import_lock:
            from shm_sdk import actions

        return actions.check(self, timeout)

    def turn_on(self) -> "ActionResult":
        """Stores the user's consent. The variables that turn telemetry off remain stronger."""
        with forking.import_lock:
            from shm_sdk import actions

        return actions.turn_on(self)

    def turn_off(self) -> "ActionResult":
        """Stores the user's refusal. Running processes see it before their next report."""
        with forking.import_lock:
            from shm_sdk import actions

        return actions.turn_off(self)

    def erase(self, timeout: float = LONG_ACTION_TIMEOUT_S) -> "ActionResult":
        """Turns telemetry off, has the server delete all data of this install, and deletes the identity."""
        with forking.import_lock:
            from shm_sdk import actions

        return actions.erase(self, timeout)

    def disclose(self, timeout: float = LONG_ACTION_TIMEOUT_S) -> "ActionResult":
        """Everything that the server holds on this install, as JSON in the result's `document`."""
        with forking.import_lock:
            from shm_sdk import actions

        return actions.disclose(self, timeout)
