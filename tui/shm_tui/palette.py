"""The entries of the command palette: the actions of the registry, and the applications."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial

from textual.app import SystemCommand
from textual.markup import escape

from shm_client import Application
from shm_tui.actions import visible_actions


def palette_commands(
    run: Callable[[str], Awaitable[object]],
    show_application: Callable[[str], None],
    applications: Iterable[Application],
    *,
    is_admin: bool,
) -> Iterator[SystemCommand]:
    """An entry for each action that the token's role permits, and for each application.

    `run` carries out an action by its name.
    """
    for action in visible_actions(is_admin=is_admin):
        if action.name != "command_palette":
            title = action.help[:1].upper() + action.help[1:]
            yield SystemCommand(title, action.key_label, _callback(run, action.name))

    for application in applications:  # the palette reads markup, and an install chose the name
        help_text = f"application, {application.instances.active:,} active"
        yield SystemCommand(escape(application.name), help_text, partial(show_application, application.slug))


def _callback(run: Callable[[str], Awaitable[object]], name: str) -> Callable[[], Awaitable[None]]:
    async def run_action() -> None:
        await run(name)

    return run_action
