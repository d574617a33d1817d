"""Text in terminal cells: a wide character occupies two cells, so lengths in characters do not align a table."""

from rich.cells import cell_len, chop_cells, set_cell_size


def cell_width(text: str) -> int:
    """The number of cells that `text` occupies."""
    return cell_len(text)


def fit(text: str, width: int, align_right: bool = False) -> str:
    """`text` in exactly `width` cells, cut or padded."""
    short = cut(text, width)
    return " " * (width - cell_len(short)) + short if align_right else set_cell_size(short, width)


def cut_middle(text: str, width: int) -> str:
    """`text` in at most `width` cells; … replaces the middle of a text that is cut, so that both ends remain."""
    if cell_len(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    half = (width - 1) // 2
    end = text[-half:] if half else ""
    while cell_len(end) > half:
        end = end[1:]
    start = text[: width - 1 - half]
    while cell_len(start) > width - 1 - half:
        start = start[:-1]
    return start.rstrip() + "…" + end.lstrip()


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells; … replaces the end of a text that is cut."""
    if width <= 0:
        return ""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)).rstrip() + "…"


def wrap(text: str, width: int) -> list[str]:
    """A text as lines of at most `width` cells, broken at spaces, and inside of words that are longer than a line."""
    if cell_width(text) <= width:
        return [text]
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_width(joined) <= width:
            lines[-1] = joined
        else:
            lines += chop_cells(word, width)
    return [line for line in lines if line]
