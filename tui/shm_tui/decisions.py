"""Decisions of an admin on one instance, and the question that each asks first."""

import asyncio
from dataclasses import dataclass

from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from shm_client import Client, ClientError, Decision, Instance
from shm_tui.model.state import Clock
from shm_tui.text.formatting import UNKNOWN, age
from shm_tui.widgets.footer import NOTICE_S, Footer

ROLE_RETRY_S = 5.0  # between two requests for the token's role


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


class Decisions:
    """Carries out decisions. `is_admin` is false until the server has said that the token is an admin's."""

    def __init__(self, client: Client, footer: Footer) -> None:
        self.is_admin = False
        self._client = client
        self._footer = footer

    async def request_role(self) -> None:
        """Finds out whether the token is an admin's, when the server answers."""
        while True:
            try:
                self.is_admin = await self._client.is_admin()
            except ClientError:  # the feed shows it
                await asyncio.sleep(ROLE_RETRY_S)
            else:
                return

    def ask(self, app: App[None], decision: Decision, instance: Instance, clock: Clock) -> None:
        """Asks first. What the question names is what the decision hits, whatever moves meanwhile."""

        def decide(is_confirmed: bool | None) -> None:
            if is_confirmed:
                app.run_worker(self._decide(decision, instance), group="decisions")

        app.push_screen(ConfirmScreen(question(decision, instance, clock)), decide)

    async def _decide(self, decision: Decision, instance: Instance) -> None:
        name = f"{instance.instance_id[:8]} of {instance.app_name}"
        try:
            await self._client.decide(instance.instance_id, decision)
        except ClientError as error:
            notice = f"{name}: {error}"
        else:
            notice = f"{DECISION_TEXTS[decision].done} {name}"
        self._footer.show_notice(notice, NOTICE_S)
