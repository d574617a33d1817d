"""Decisions of an admin on many instances: the marked ones, or all that match the filter.

The server previews a decision, which the question names with its number, and carries it out in the background.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual.app import App

from shm_client import BulkChange, Client, ClientError, Decision, Instance, ServerUnavailableError
from shm_tui.confirm_screen import YES, PreviewScreen
from shm_tui.model.live_session import LiveSession
from shm_tui.text.formatting import plural
from shm_tui.widgets.footer import NOTICE_S, Footer

MAX_MARKED = 1_000  # instances: the server takes as many IDs in one request
MAX_NAMED = 8  # marked instances that the question names
POLL_INTERVAL_S = 1.0  # of a change that runs


@dataclass(frozen=True, slots=True)
class DecisionText:
    """The words of a decision: the verb, its effect on one and on many instances, and the notice afterwards."""

    verb: str
    effect: str
    effect_on_many: str
    done: str


DECISION_TEXTS: dict[Decision, DecisionText] = {
    "approve": DecisionText(
        "Approve",
        "From now on it counts, and its reports are accepted.",
        "From now on they count, and their reports are accepted.",
        "Approved",
    ),
    "revoke": DecisionText(
        "Revoke",
        "It no longer counts, and its reports are refused for good.",
        "They no longer count, and their reports are refused for good.",
        "Revoked",
    ),
    "erase": DecisionText(
        "Erase",
        "The instance and its whole history are deleted for good.",
        "The instances and their whole history are deleted for good.",
        "Erased",
    ),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Instances to decide on: those with IDs, or those of an application, or of all (None), that match conditions.

    `description` names them: the marked ones by their IDs, the others by the filter.
    """

    slug: str | None
    description: str
    matching: int  # how many there are, those included that the decision leaves as they are
    conditions: Sequence[str] = ()
    instance_ids: Sequence[str] = ()


def marked_choice(marked: Sequence[Instance]) -> Choice:
    """The marked instances."""
    lines = [
        f"{each.instance_id[:8]}  {each.app_name} {each.app_version}  {each.status}" for each in marked[:MAX_NAMED]
    ]
    if len(marked) > MAX_NAMED:
        lines.append(f"and {len(marked) - MAX_NAMED:,} more")
    return Choice(None, "\n".join(lines), len(marked), instance_ids=[each.instance_id for each in marked])


def matching_choice(session: LiveSession, filter_text: str) -> Choice | None:
    """The instances that match the filter; None without one, or if the server does not evaluate it or has none."""
    store = session.store
    if not store.filter or not store.filter.server_filter.is_whole:
        return None
    count = store.known_count if store.is_windowed or not session.is_partial() else session.server_matches.count
    of_all = f"of {session.slug or 'all applications'} that match /{filter_text}"
    return Choice(session.slug, of_all, count, store.filter.server_filter.conditions) if count else None


def many_question(decision: Decision, choice: Choice, preview: BulkChange) -> str:
    """Names the instances that a decision hits, their number, and the effect."""
    text = DECISION_TEXTS[decision]
    left = choice.matching - preview.instances
    reason = "not pending" if decision == "approve" else "revoked already"
    note = f"{left:,} more of them {'is' if left == 1 else 'are'} {reason}."
    parts = [
        f"{text.verb} {plural(preview.instances, 'instance')}?",
        choice.description,
        note if left > 0 else "",
        text.effect_on_many,
        f"{YES} {text.verb.lower()} {preview.instances:,}   n cancel",
    ]
    return "\n\n".join(part for part in parts if part)


class BulkDecisions:
    """Asks and carries out decisions on many instances. `clear_marks` is called once the server has accepted one."""

    def __init__(self, app: App[None], client: Client, footer: Footer) -> None:
        self._app, self._client, self._footer = app, client, footer

    def ask(self, decision: Decision, choice: Choice, clear_marks: Callable[[], None] | None = None) -> None:
        """Asks with the number of the server's preview, then decides."""

        async def preview() -> str | None:
            return await self._preview(decision, choice)

        def decide(answer: str | None) -> None:
            if answer == YES:
                self._app.run_worker(self._decide(decision, choice, clear_marks), group="decisions")

        self._app.push_screen(PreviewScreen(preview), decide)

    async def _preview(self, decision: Decision, choice: Choice) -> str | None:
        """The question; None after a notice that there is nothing to ask."""
        verb = DECISION_TEXTS[decision].verb
        try:
            preview = await self._request(decision, choice, is_preview=True)
        except ClientError as error:
            self._notify(f"{verb}: {error}")
            return None
        if not preview.instances:
            self._notify(f"{verb}: none of {plural(choice.matching, 'instance')} changes by it")
            return None
        return many_question(decision, choice, preview)

    async def _decide(self, decision: Decision, choice: Choice, clear_marks: Callable[[], None] | None) -> None:
        server = self._client.server
        try:
            change = await self._request(decision, choice, is_preview=False)
        except ClientError as error:
            self._notify(f"{DECISION_TEXTS[decision].verb}: {error}")
            return
        if clear_marks is not None:
            clear_marks()
        await follow_change(self._client, server, change, DECISION_TEXTS[decision].done, self._notify)

    async def _request(self, decision: Decision, choice: Choice, *, is_preview: bool) -> BulkChange:
        return await self._client.decide_many(
            decision,
            choice.slug,
            conditions=choice.conditions,
            instance_ids=choice.instance_ids,
            is_preview=is_preview,
        )

    def _notify(self, notice: str) -> None:
        self._footer.show_notice(notice, NOTICE_S)


async def follow_change(
    client: Client, server: str, change: BulkChange, done: str, notify: Callable[[str], None]
) -> bool:
    """Shows the progress of a change of `server` until it has ended, or the client has connected to another one.

    `done` is the verb: `Revoked`. Returns whether it is known that all instances have been changed.
    """
    while change.finished_at is None:
        ending = ", finishing" if change.processed >= change.instances else ""  # a merge then computes the charts
        notify(f"{done} {change.processed:,} of {plural(change.instances, 'instance')}{ending}")
        await asyncio.sleep(POLL_INTERVAL_S)
        if client.server != server:
            return False
        try:
            newest = await client.bulk_change(change.id or "")
        except ServerUnavailableError:  # the feed shows it
            continue
        except ClientError as error:
            notify(f"The change goes on, its progress is unknown: {error}")
            return False
        if newest is None:
            return False
        change = newest
    failures = f", {change.failed:,} failed: {change.error}" if change.failed else ""
    notify(f"{done} {plural(change.processed, 'instance')}{failures}")
    return not change.failed
