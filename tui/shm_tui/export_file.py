"""Writes an export: to a new file that only its owner can read, whole or not at all, or into a text of limited size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from shm_tui.config.storage import private_file
from shm_tui.errors import ExportError
from shm_tui.model.export import ExportSource
from shm_tui.text.osc52 import MAX_BYTES
from shm_tui.text.table_formats import EXTENSIONS, TableFormat, render_head, render_rows

MAX_STEM_CHARS = 80  # of a file's name: file systems take 255 bytes


async def write_export(
    source: ExportSource, format_: TableFormat, write: Callable[[str], object], on_progress: Callable[[int], None]
) -> int:
    """Writes all rows, and returns their number; `on_progress` gets it after each page. Raises ClientError."""
    write(render_head(format_, source.names))
    count = 0
    async for rows in source.pages():
        write(render_rows(format_, source.names, rows))
        count += len(rows)
        on_progress(count)
    return count


def file_name(source: ExportSource, format_: TableFormat, now: datetime) -> str:
    """The name of the file: what it has, and when it was written: ledger-instances-20261129-205512.csv."""
    stem = "".join(character if character.isascii() and character.isalnum() else "-" for character in source.file_stem)
    return f"shm-{stem[:MAX_STEM_CHARS]}-{now:%Y%m%d-%H%M%S}.{EXTENSIONS[format_]}"


@contextmanager
def new_file(path: Path) -> Iterator[Callable[[str], object]]:
    """Writes a new file with mode 0600. It has its name only at the end of the context, unless that raises.

    Raises ExportError if it cannot be written, or exists.
    """
    try:
        with private_file(path, is_new=True) as output:
            yield lambda text: output.write(text.encode())
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from None


class LimitedText:
    """Collects a text that fits the clipboard of a terminal."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._bytes = 0

    def write(self, text: str) -> None:
        """Adds a part. Raises ExportError at the limit."""
        self._bytes += len(text.encode())
        if self._bytes > MAX_BYTES:
            raise ExportError(
                f"more than {MAX_BYTES:,} bytes do not fit a terminal's clipboard; a filter makes it less"
            )
        self._parts.append(text)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)
