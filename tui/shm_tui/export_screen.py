"""The export of what is shown: asks for the format, writes it with its progress, and says where it is.

In a restricted session nothing is written on the host: the text goes to the terminal's clipboard, if it fits.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Static
from textual.worker import Worker

from shm_client import ClientError
from shm_tui.dialog import Dialog
from shm_tui.errors import ExportError
from shm_tui.export_file import LimitedText, file_name, new_file, write_export
from shm_tui.model.export import ExportSource
from shm_tui.text.formatting import plural
from shm_tui.text.table_formats import FORMATS, TableFormat

FORMAT_KEYS: dict[str, tuple[TableFormat, str]] = {
    "c": ("csv", "CSV"),
    "j": ("jsonl", "JSON lines"),
    "m": ("markdown", "Markdown"),
}
CLOSE = "Esc close"  # the last line of an export that has ended


class ExportScreen(Dialog[str]):
    """Exports a source into a file of `folder`, or to the clipboard where `folder` is None.

    The result is a notice of an export that was cancelled; "" or None of any other.
    """

    BINDINGS = [  # noqa: RUF012
        *(Binding(key, f"export('{format_}')", label) for key, (format_, label) in FORMAT_KEYS.items()),
        Binding("y", "copy", "copy the path"),
        Binding("escape,q,ctrl+c", "cancel", "cancel"),
    ]

    def __init__(self, source: ExportSource, folder: Path | None, copy: Callable[[str, str], str]) -> None:
        super().__init__()
        self._source, self._folder, self._copy = source, folder, copy
        self._job: Worker[None] | None = None
        self._path: Path | None = None  # once it has been written
        self._count = 0  # rows so far
        self._body = Static(self._question, markup=False)

    def compose(self) -> ComposeResult:
        """One text in a box."""
        with Vertical(id="confirm"):
            yield self._body

    @property
    def text(self) -> str:
        """The text in the box."""
        return str(self._body.content)

    @property
    def _question(self) -> str:
        source = self._source
        rows = f"{source.noun}s" if source.total is None else plural(source.total, source.noun)
        target = (
            f"a file in {self._folder}" if self._folder else "the terminal's clipboard: this session writes no file"
        )
        keys = "   ".join(f"{key} {label}" for key, (_, label) in FORMAT_KEYS.items())
        parts = [f"Export {rows} {source.subject}, {plural(len(source.names), 'column')}, to {target}", source.note]
        return "\n\n".join([*(part for part in parts if part), f"{keys}   Esc cancel"])

    def action_export(self, format_: str) -> None:
        """Starts the export, once."""
        if self._job is None and format_ in FORMATS:
            # Not a coroutine yet: the next key may close the screen before the worker starts.
            export = partial(self._export, format_)
            self._job = self.run_worker(export, group="export", exit_on_error=False)

    def action_copy(self) -> None:
        """Copies the path of the file."""
        if self._path is not None:
            self._show(f"Wrote {self._path}", self._copy("path", str(self._path)), CLOSE)

    def action_cancel(self) -> None:
        """Closes the box. An export that runs ends, and its unfinished file, which has no name yet, is removed."""
        if self._job is None or self._job.is_finished:
            self.dismiss()
            return
        self._job.cancel()
        left = "no file was written" if self._folder is not None else "nothing was copied"
        self.dismiss(f"The export was cancelled after {plural(self._count, 'row')}: {left}")

    async def _export(self, format_: TableFormat) -> None:
        try:
            if self._folder is None:
                await self._export_to_clipboard(format_)
            else:
                await self._export_to_file(format_, self._folder)
        except (ClientError, ExportError) as error:
            self._show(f"The export failed: {error}.", "Nothing was written.", CLOSE)

    async def _export_to_file(self, format_: TableFormat, folder: Path) -> None:
        path = folder / file_name(self._source, format_, datetime.now(UTC))
        with new_file(path) as write:
            count = await write_export(self._source, format_, write, self._show_progress)
        self._path = path
        self._show(f"Wrote {plural(count, 'row')} to {path}", self._source.note, f"y copy the path   {CLOSE}")

    async def _export_to_clipboard(self, format_: TableFormat) -> None:
        collected = LimitedText()
        count = await write_export(self._source, format_, collected.write, self._show_progress)
        self._show(self._copy(plural(count, "row"), collected.text), self._source.note, CLOSE)

    def _show_progress(self, count: int) -> None:
        self._count = count
        total = self._source.total
        self._show(f"{count:,} of {total:,} rows" if total is not None else plural(count, "row"), "Esc cancel")

    def _show(self, *parts: str) -> None:
        self._body.update("\n\n".join(part for part in parts if part))
