"""Hints of the developer about metrics: suggested labels, units and aggregates, which the vendor may accept.

They are sent with the registration, so they cost a request only when they change.
"""

from collections.abc import Mapping

MAX_HINTS = 128
MAX_BYTES = 32 * 1024  # of all; a server takes a registration of 64 KiB
MAX_NAME_CHARS = 128  # as of a metric
MAX_CHARS = {"label": 64, "unit": 16, "description": 200}
WORDS = {"kind": ("business", "system"), "aggregate": ("sum", "avg", "min", "max", "median")}

HintDocument = dict[str, dict[str, str]]  # by the full dotted name of a metric


class Hints:
    """The hints of one client."""

    def __init__(self) -> None:
        self._by_name: HintDocument = {}

    def add(self, name: object, fields: Mapping[str, object]) -> str:
        """Adds a hint about a metric. Fields that are None stay as they are. Returns the error, or ''."""
        given = {field: value for field, value in fields.items() if value is not None}
        if error := _find_error(name, given):
            return error
        key = str(name)
        if key not in self._by_name and len(self._by_name) >= MAX_HINTS:
            return f"more than {MAX_HINTS} metrics are described"
        hint = {**self._by_name.get(key, {}), **{field: str(value) for field, value in given.items()}}
        others = sum(_count_bytes(other, self._by_name[other]) for other in self._by_name if other != key)
        if others + _count_bytes(key, hint) > MAX_BYTES:
            return f"the descriptions have more than {MAX_BYTES} bytes"
        self._by_name[key] = hint
        return ""

    def merged_with(self, earlier: Mapping[str, Mapping[str, object]]) -> HintDocument:
        """These hints, and those of other processes as far as the limits allow."""
        merged = Hints()
        for document in (self.document(), {name: hint for name, hint in earlier.items() if name not in self._by_name}):
            for name, hint in document.items():
                merged.add(name, hint)
        return merged.document()

    def document(self) -> HintDocument:
        """All hints, sorted: the order in which a host declares them means nothing."""
        return {name: dict(sorted(hint.items())) for name, hint in sorted(dict(self._by_name).items())}


def _count_bytes(name: str, hint: Mapping[str, str]) -> int:
    """About the size in JSON."""
    return sum(len(text.encode()) + len('"":""') for text in (name, *hint, *hint.values()))


def _find_error(name: object, given: Mapping[str, object]) -> str:
    """The error in a hint, '' for a valid one."""
    if not _is_text(name, MAX_NAME_CHARS):
        return f"a metric's name must be a printable text of at most {MAX_NAME_CHARS} characters"
    for field, value in given.items():
        if field not in WORDS and field not in MAX_CHARS:
            return f"{field} is not a property of a metric"
        if field in WORDS and value not in WORDS[field]:
            return f"{field} of {name} must be one of {', '.join(WORDS[field])}"
        if field in MAX_CHARS and not _is_text(value, MAX_CHARS[field]):
            return f"{field} of {name} must be a printable text of at most {MAX_CHARS[field]} characters"
    return ""


def _is_text(value: object, max_chars: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= max_chars and value.isprintable() and value.strip() == value
