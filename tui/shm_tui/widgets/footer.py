"""The bottom line: the keys that work in the current context, or a message, which may take further lines."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget

from shm_tui.actions import ACTIONS, Action, Context, footer_hints
from shm_tui.text.cells import wrap
from shm_tui.widgets.delayed_call import call_after

NOTICE_S = 4.0  # long enough to read a line
GAP = 3  # cells between two keys
MAX_LINES = 4  # of a message: the longest ones name a server and the reason why it does not answer


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
            self._fit()

    def show_notice(self, notice: str, seconds: float) -> None:
        """Shows the answer to a key for some seconds, in place of keys and message."""
        self._notice = notice
        self._fit()
        call_after(self, seconds, lambda: self._end_notice(notice))

    def _end_notice(self, notice: str) -> None:
        if self._notice == notice:
            self._notice = ""
            self._fit()

    def on_resize(self) -> None:
        """Another width may need another number of lines."""
        self._fit()

    def _fit(self) -> None:
        """Takes as many lines as the message needs. Without a change of their number, the screen is not laid out."""
        height = max(1, len(self._message_lines()))
        if self.size.width and height != self.size.height:
            self.styles.height = height
        self.refresh()

    def _message_lines(self) -> list[str]:
        """The lines of the notice or the message; none without one."""
        is_of_prompt = self.message and self.context in ("filter", "place")  # why the text is invalid
        text = self.message if is_of_prompt else self._notice or self.message
        lines = wrap(text, max(1, self.size.width - 2)) if text else []
        return lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], f"{lines[MAX_LINES - 1][:-1]}…"]

    def render(self) -> Text:
        """The notice, the message, or as many keys as fit: the keys of help and of closing always do."""
        if lines := self._message_lines():
            style = self.get_component_rich_style("footer--message")
            return Text("\n".join(f" {line}" for line in lines), style, no_wrap=True)
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
