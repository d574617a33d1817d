"""The entries of the command palette: the actions of the registry, and the applications."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial

from textual.app import SystemCommand
from textual.markup import escape

from shm_client import Application
from shm_tui.actions import Action


def palette_commands(
    run: Callable[[str], Awaitable[object]],
    show_application: Callable[[str], None],
    applications: Iterable[Application],
    actions: Iterable[Action],
) -> Iterator[SystemCommand]:
    """An entry for each action and for each application.

    `run` carries out an action by its name.
    """
    for action in actions:
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
