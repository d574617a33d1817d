"""The palettes of actions and of themes: Textual's, which close once and show a theme before it is chosen."""

from contextlib import suppress
from typing import Any, ClassVar, cast

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.command import Command, CommandList, CommandPalette
from textual.errors import NoWidget
from textual.events import Click
from textual.theme import ThemeProvider
from textual.widgets import OptionList
from textual.worker import Worker


class Entries(CommandList):
    """The list of a palette. A search may have replaced the entries since a click was made on one of them."""

    def on_click(self, event: Click) -> None:
        """Ignores a click on an entry that is gone; Textual's list fails for it."""
        number = event.style.meta.get("option")
        if number is not None and number >= self.option_count:
            event.prevent_default()


class Palette(CommandPalette):
    """The palette of actions."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "escape", "close", show=False)]

    def compose(self) -> ComposeResult:
        """Textual's widgets, with another list."""
        for widget in super().compose():
            yield Entries() if isinstance(widget, CommandList) else widget

    def on_click(self, event: Click) -> None:
        """Ignores a click outside of the screen, which may be smaller by now; Textual's palette fails for it."""
        try:
            self.get_widget_at(event.screen_x, event.screen_y)
        except NoWidget:
            event.prevent_default()

    def dismiss(self, result: object = None) -> AwaitComplete:
        """Closes the palette if it is on top, as `Dialog` does."""
        if self.app.screen is not self:
            return AwaitComplete()
        self._stop_busy_countdown()
        self._stop_no_matches_countdown()
        return super().dismiss(cast("Any", result))

    def _action_command_list(self, action: str) -> None:
        """Moves in the list. Textual's fails for a page of entries that have never been laid out, so have no lines."""
        with suppress(KeyError):
            super()._action_command_list(action)

    def _start_no_matches_countdown(self, search_value: str) -> None:
        """Says after a while that nothing matches, unless the palette has closed meanwhile."""
        if self.app.screen is self:
            super()._start_no_matches_countdown(search_value)

    def _watch__list_visible(self) -> None:
        """Shows the list. Textual calls this even after it has removed the widgets of a palette that closes."""
        if self.query("CommandList"):
            super()._watch__list_visible()

    def _watch__show_busy(self) -> None:  # type: ignore[override] # nothing awaits a coroutine of a closed palette
        """Shows that a search takes long, as Textual's method does. Called like the method above."""
        self.query("LoadingIndicator").set_class(self._show_busy, "--visible")
        self.query("CommandList").set_class(self._show_busy, "--populating")

    def run_worker(self, *args: Any, **options: Any) -> Worker[Any]:
        """Runs a search. One that finds the palette closed ends, and not the console with it."""
        return super().run_worker(*args, **options | {"exit_on_error": False})


class ThemePalette(Palette):
    """Draws the console in the theme under the cursor. Without a choice the theme before is restored."""

    def __init__(self) -> None:
        super().__init__(providers=[ThemeProvider], placeholder="Search for themes…")

    def on_mount(self) -> None:
        """Remembers the theme."""
        self._theme_before = self.app.theme

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Draws the theme under the cursor."""
        name = event.option.hit.text if isinstance(event.option, Command) else None
        if name in self.app.available_themes and self.app.screen is self:
            self.app.theme = name

    def dismiss(self, result: object = None) -> AwaitComplete:
        """Restores the theme. The chosen one is set after that."""
        if self.app.screen is self:
            self.app.theme = self._theme_before
        return super().dismiss(result)
