"""Decisions of an admin on one instance, and the question that each asks first."""

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from shm_client import Decision, Instance
from shm_tui.model.state import Clock
from shm_tui.text.formatting import UNKNOWN, age


@dataclass(frozen=True, slots=True)
class DecisionText:
    """The words of a decision: the verb of the question, its effect, and the notice afterwards."""

    verb: str
    effect: str
    done: str


DECISION_TEXTS: dict[Decision, DecisionText] = {
    "approve": DecisionText("Approve", "From now on it counts, and its reports are accepted.", "Approved"),
    "revoke": DecisionText("Revoke", "It no longer counts, and its reports are refused for good.", "Revoked"),
    "erase": DecisionText("Erase", "The instance and its whole history are deleted for good.", "Erased"),
}


def question(decision: Decision, instance: Instance, clock: Clock) -> str:
    """Names the instance that a decision hits, with what distinguishes it, and the effect."""
    text = DECISION_TEXTS[decision]
    seen = "never seen" if instance.last_seen_at is None else f"seen {age(instance.last_seen_at, clock.now)} ago"
    facts = [instance.app_version, instance.environment, instance.status, seen]
    return (
        f"{text.verb} this instance?\n\n"
        f"{instance.instance_id}\n"
        f"{instance.app_name or UNKNOWN}: {', '.join(fact for fact in facts if fact)}\n\n"
        f"{text.effect}\n\n"
        f"y {text.verb.lower()}   n cancel"
    )


class ConfirmScreen(ModalScreen[bool]):
    """Asks a question. Only `y` is a yes."""

    BINDINGS = [  # noqa: RUF012
        ("y", "answer(True)", "yes"),
        ("n,escape,q,enter,ctrl+c", "answer(False)", "no"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The question in a box."""
        with Vertical(id="confirm"):
            yield Static(self._text, markup=False)

    def action_answer(self, is_yes: bool) -> None:
        """Closes the screen with the answer."""
        self.dismiss(is_yes)
