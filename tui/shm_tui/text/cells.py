"""Text in a number of cells: a wide character takes two, and a table stays straight all the same."""

from rich.cells import cell_len, set_cell_size


def fit(text: str, width: int, right: bool = False) -> str:
    """`text` in exactly `width` cells, cut or padded."""
    short = cut(text, width)
    return " " * (width - cell_len(short)) + short if right else set_cell_size(short, width)


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells, its end … when it was cut."""
    if width <= 0:
        return ""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)).rstrip() + "…"
