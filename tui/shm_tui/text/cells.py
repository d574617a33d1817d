"""Text in terminal cells: a wide character occupies two cells, so lengths in characters do not align a table."""

from rich.cells import cell_len, set_cell_size


def cell_width(text: str) -> int:
    """The number of cells that `text` occupies."""
    return cell_len(text)


def fit(text: str, width: int, align_right: bool = False) -> str:
    """`text` in exactly `width` cells, cut or padded."""
    short = cut(text, width)
    return " " * (width - cell_len(short)) + short if align_right else set_cell_size(short, width)


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells; … replaces the end of a text that is cut."""
    if width <= 0:
        return ""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)).rstrip() + "…"
