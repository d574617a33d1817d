"""Decisions of an admin on one instance, and the question that each asks first."""

import asyncio
from collections.abc import Callable, Sequence

from textual.app import App

from shm_client import Client, ClientError, Decision, Instance
from shm_tui.bulk_decisions import DECISION_TEXTS, BulkDecisions, Choice, marked_choice
from shm_tui.confirm_screen import YES, ConfirmScreen
from shm_tui.model.state import Clock
from shm_tui.text.formatting import UNKNOWN, age
from shm_tui.widgets.footer import NOTICE_S, Footer

ROLE_RETRY_S = 5.0  # between two requests for the token's role
OF_FILTER = "f"  # the answer for all instances that match the filter


def question(decision: Decision, instance: Instance, clock: Clock, of_filter: str = "") -> str:
    """Names the instance that a decision applies to, the texts that identify it, and the effect.

    `of_filter`: the other instances that can be chosen.
    """
    text = DECISION_TEXTS[decision]
    seen = "never seen" if instance.last_seen_at is None else f"seen {age(instance.last_seen_at, clock.now)} ago"
    facts = [instance.app_version, instance.environment, instance.status, seen]
    return (
        f"{text.verb} this instance?\n\n"
        f"{instance.instance_id}\n"
        f"{instance.app_name or UNKNOWN}: {', '.join(fact for fact in facts if fact)}\n\n"
        f"{text.effect}\n\n"
        f"{YES} {text.verb.lower()}   n cancel" + (f"\n{OF_FILTER} {of_filter}" if of_filter else "")
    )


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

    def ask(
        self, app: App[None], decision: Decision, instance: Instance, clock: Clock, matching: Choice | None = None
    ) -> None:
        """Asks first. The decision applies to the instances that the question names, also if rows move meanwhile.

        With `matching` the answer may be to decide on these instances, which asks again.
        """
        of_filter = f"all {matching.matching:,} {matching.description}" if matching else ""

        def decide(answer: str | None) -> None:
            if answer == YES:
                app.run_worker(self._decide(decision, instance), group="decisions")
            elif answer == OF_FILTER and matching is not None:
                BulkDecisions(app, self._client, self._footer).ask(decision, matching)

        answers = (YES, OF_FILTER) if matching else (YES,)
        app.push_screen(ConfirmScreen(question(decision, instance, clock, of_filter), answers), decide)

    def ask_marked(
        self, app: App[None], decision: Decision, marked: Sequence[Instance], clear_marks: Callable[[], None]
    ) -> None:
        """Asks for the marked instances. `clear_marks` is called when the server has accepted the decision."""
        BulkDecisions(app, self._client, self._footer).ask(decision, marked_choice(marked), clear_marks)

    async def _decide(self, decision: Decision, instance: Instance) -> None:
        name = f"{instance.instance_id[:8]} of {instance.app_name}"
        try:
            await self._client.decide(instance.instance_id, decision)
        except ClientError as error:
            notice = f"{name}: {error}"
        else:
            notice = f"{DECISION_TEXTS[decision].done} {name}"
        self._footer.show_notice(notice, NOTICE_S)
