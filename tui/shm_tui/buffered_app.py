"""An application that writes to the terminal only the cells that changed."""

from rich.console import RenderableType
from textual import events
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.screen import Screen

from shm_tui.widgets.screen_buffer import Frame, ScreenBuffer


class BufferedApp(App[None]):
    """Compares each frame with the terminal's content, and writes nothing for a frame without a change."""

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._buffer = ScreenBuffer()

    def on_mount(self) -> None:
        """After another program has used the terminal, everything is written again."""
        self.app_resume_signal.subscribe(self, lambda _: self._buffer.invalidate())

    def on_resize(self) -> None:
        """A terminal may rearrange its content when its size changes."""
        self._buffer.invalidate()

    async def on_event(self, event: events.Event) -> None:
        """Drops a press on a widget that was removed and is still drawn: Textual fails on its missing parent."""
        if isinstance(event, events.MouseDown) and self._screen_stack:
            widget, _ = self.screen.get_widget_and_offset_at(event.x, event.y)
            if widget is not None and widget.parent is None:
                return
        await super().on_event(event)

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
