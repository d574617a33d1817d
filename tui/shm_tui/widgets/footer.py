"""The bottom line: the keys that work in the current context, or a message."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget

from shm_tui.actions import ACTIONS, Action, Context, footer_hints
from shm_tui.widgets.delayed_call import call_after

NOTICE_S = 4.0  # long enough to read a line
GAP = 3  # cells between two keys


class Footer(Widget):
    """Shows keys with their hints. A message replaces them until it is cleared."""

    COMPONENT_CLASSES = {"footer--key", "footer--message"}  # noqa: RUF012

    message = ""
    context: Context = "table"
    actions: Sequence[Action] = ACTIONS
    _notice = ""

    def show_keys(self, context: Context) -> None:
        """Shows the keys of another context."""
        if context != self.context:
            self.context = context
            self.refresh()

    def show_message(self, message: str) -> None:
        """Shows a message; "" shows the keys again."""
        if message != self.message:
            self.message = message
            self.refresh()

    def show_notice(self, notice: str, seconds: float) -> None:
        """Shows the answer to a key for some seconds, in place of keys and message."""
        self._notice = notice
        self.refresh()
        call_after(self, seconds, lambda: self._end_notice(notice))

    def _end_notice(self, notice: str) -> None:
        if self._notice == notice:
            self._notice = ""
            self.refresh()

    def render(self) -> Text:
        """The notice, the message, or as many keys as fit: the keys of help and of closing always do."""
        if message := self._notice or self.message:
            style = self.get_component_rich_style("footer--message")
            return Text(f" {message}", style, no_wrap=True, overflow="ellipsis")
        key_style = self.get_component_rich_style("footer--key")
        parts = [
            (Text.assemble((key, key_style), f" {hint}"), is_pinned)
            for key, hint, is_pinned in footer_hints(self.context, self.actions)
        ]
        remaining = self.size.width - 1 - sum(_width(part) for part, is_pinned in parts if is_pinned)
        shown = []
        for part, is_pinned in parts:
            if not is_pinned:
                remaining -= _width(part)
            if is_pinned or remaining >= -GAP:
                shown.append(part)
        return Text(" ", no_wrap=True) + Text(" " * GAP).join(shown)


def _width(part: Text) -> int:
    return cell_len(part.plain) + GAP
