"""The two lines of a column's head. A label that does not fit keeps its beginning and its end."""

from shm_tui.text.cells import cell_width, cut_middle

HEAD_LINES = 2


def split_head(label: str) -> tuple[str, str]:
    """A label on two lines, broken at the space that makes the longer line as short as possible."""
    words = label.split(" ")
    splits = [(" ".join(words[:index]), " ".join(words[index:])) for index in range(len(words))]
    return min(splits, key=lambda lines: max(map(cell_width, lines)))


def head_width(label: str) -> int:
    """The cells of the longer line."""
    return max(map(cell_width, split_head(label)))


def head_lines(label: str, width: int) -> tuple[str, str]:
    """A label in two lines of at most `width` cells. One line is the lower one, above its values."""
    lines = split_head(label)
    if max(map(cell_width, lines)) <= width:
        return lines
    short = cut_middle(label, 2 * width - 1)  # a wide character may leave a cell of the first line empty
    first = short
    while cell_width(first) > width:
        first = first[:-1]
    return first.rstrip(), short[len(first) :].lstrip()
