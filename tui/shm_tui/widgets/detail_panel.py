"""The drawer: everything about one instance, exact where the table is short."""

import json
from decimal import Decimal
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.containers import VerticalScroll
from textual.widgets import Static

from shm_client.model import Value
from shm_tui.model.columns import Described, Moment, Row
from shm_tui.model.state import State, state_of
from shm_tui.text.cells import cut
from shm_tui.text.formatting import NOTHING, age, exact, stamp

LABEL = 14  # cells of a name before its value
KEY = 30  # cells of a metric's name
FIGURE = 22  # cells of its value, which stands at their right end
STYLES = ("title", "head", "name", "value", *(state.style for state in State))


class Drawer(VerticalScroll):
    """Details of the instance under the cursor, kept as new as the table."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"drawer--{name}" for name in STYLES}

    def __init__(self) -> None:
        super().__init__()
        self._body = Static()

    def compose(self) -> Any:
        """The text, in something that scrolls."""
        yield self._body

    def show(self, row: Row, moment: Moment, descriptions: Described) -> None:
        """Draws an instance."""
        style = {name: self.get_component_rich_style(f"drawer--{name}", partial=True) for name in STYLES}
        self._body.update(details(row, moment, style, descriptions))


def details(row: Row, moment: Moment, style: dict[str, Style], descriptions: Described) -> Text:
    """All there is to say of an instance."""
    one = row.instance
    state = state_of(one, moment.now, moment.active_window_s)
    lines = [
        Text.assemble((one.instance_id, style["title"])),
        Text.assemble((state.glyph, style[state.style]), (f" {state.meaning}", style["name"])),
    ]

    def section(title: str, pairs: list[tuple[str, str]]) -> None:
        if not pairs:
            return
        lines.extend((Text(), Text(title, style["head"])))
        for name, value in pairs:
            lines.append(Text.assemble((_padded(name, LABEL), style["name"]), (value, style["value"])))

    section(
        "IDENTITY",
        [
            ("application", f"{one.app_name or NOTHING}  ({one.app_slug})"),
            ("version", one.app_version or NOTHING),
            ("environment", one.environment or NOTHING),
            ("mode", one.deployment_mode or NOTHING),
            ("os", one.os_arch or NOTHING),
        ],
    )
    section(
        "TIMES",
        [
            ("last seen", _when(one.last_seen_at, moment)),
            ("first seen", _when(one.first_seen_at, moment)),
            ("snapshot of", _when(one.snapshot_at, moment)),
        ],
    )
    described = [descriptions[key] for key in sorted(row.leaves)]
    for title, kind in (("METRICS", "business"), ("SYSTEM", "system")):
        of_kind = [one for one in described if one.kind == kind and not one.hidden]
        if of_kind:
            lines.extend((Text(), Text(title, style["head"])))
        for one_key in of_kind:
            key = one_key.key
            value = written(row.leaves[key], one_key.unit)
            blank = " " * max(0, FIGURE - cell_len(value))
            name = _padded(_shortened(key, KEY - 1), KEY)
            lines.append(Text.assemble((name + blank, style["name"]), (value, style["value"])))
    lines.extend((Text(), Text("AS IT WAS SENT", style["head"])))
    lines.append(Text(payload(one.metrics), style["name"]))
    return Text("\n").join(lines)


def written(value: Value, unit: str | None = None) -> str:
    """A metric's value with every digit, a number's with its unit."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return f"{exact(value)} {unit}" if unit else exact(value)
    return value if isinstance(value, str) else payload(value)


def payload(value: object, depth: int = 0) -> str:
    """JSON with every digit of its numbers, two spaces a level."""
    if isinstance(value, Decimal):
        return f"{value}"
    if isinstance(value, dict) and value:
        pad = "  " * (depth + 1)
        inner = ",\n".join(f"{pad}{_quoted(key)}: {payload(each, depth + 1)}" for key, each in value.items())
        return "{\n" + inner + "\n" + "  " * depth + "}"
    if isinstance(value, list):
        return "[" + ", ".join(payload(each, depth) for each in value) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return exact(value).replace(",", "")
    return _quoted(value)


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _when(at: Any, moment: Moment) -> str:
    return NOTHING if at is None else f"{stamp(at)}   {age(at, moment.now)} ago"


def _shortened(name: str, width: int) -> str:
    """A long key keeps its beginning and its end; what was sent has it whole, further down."""
    if cell_len(name) <= width:
        return name
    half = (width - 1) // 2
    end = name[-half:]
    while cell_len(end) > half:
        end = end[1:]
    return cut(name, half + 1).removesuffix("…").rstrip() + "…" + end


def _padded(name: str, width: int) -> str:
    return name + " " * max(1, width - cell_len(name))
