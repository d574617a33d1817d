"""The entries of the command palette: the actions of the registry."""

from collections.abc import Awaitable, Callable, Iterator

from textual.app import SystemCommand

from shm_tui.actions import visible_actions


def palette_commands(run: Callable[[str], Awaitable[object]], *, is_admin: bool) -> Iterator[SystemCommand]:
    """An entry for each action that the token's role permits; `run` carries out an action by its name."""
    for action in visible_actions(is_admin=is_admin):
        if action.name != "command_palette":
            title = action.help[:1].upper() + action.help[1:]
            yield SystemCommand(title, action.key_label, _callback(run, action.name))


def _callback(run: Callable[[str], Awaitable[object]], name: str) -> Callable[[], Awaitable[None]]:
    async def run_action() -> None:
        await run(name)

    return run_action
