"""An application that writes to the terminal only the cells that changed."""

from rich.console import RenderableType
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.screen import Screen

from shm_tui.widgets.screen_buffer import Frame, ScreenBuffer


class BufferedApp(App[None]):
    """Compares each frame with the terminal's content, and writes nothing for a frame without a change."""

    # Textual's own selection fails on widgets that are gone or have fewer lines by now, takes Ctrl+C, and copies past
    # the limits of the console. A terminal selects with Shift.
    ALLOW_SELECT = False

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._buffer = ScreenBuffer()

    def on_mount(self) -> None:
        """After another program has used the terminal, everything is written again."""
        self.app_resume_signal.subscribe(self, lambda _: self._buffer.invalidate())

    def on_resize(self) -> None:
        """A terminal may rearrange its content when its size changes."""
        self._buffer.invalidate()

    def repaint(self) -> None:
        """Writes every cell: something else may have written to the terminal."""
        self._buffer.invalidate()
        self.screen.refresh()

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        is_written = self._running and not (self._batch_count or self.is_headless or self._closed)
        if is_written and isinstance(renderable, ChopsUpdate | LayoutUpdate):
            sequence = self._buffer.apply(renderable, self.console, (self.size.width, self.size.height))
            super()._display(screen, Frame(sequence) if sequence else None)
        else:
            super()._display(screen, renderable)
