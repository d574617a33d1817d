"""JSON for a person: with every digit of its numbers."""

import json
from decimal import Decimal

from shm_tui.text.formatting import exact


def format_json(value: object, depth: int = 0) -> str:
    """JSON with every digit of its numbers, indented by two spaces."""
    if isinstance(value, Decimal):
        return f"{value}"
    if isinstance(value, dict) and value:
        pad = "  " * (depth + 1)
        inner = ",\n".join(f"{pad}{_quoted(key)}: {format_json(item, depth + 1)}" for key, item in value.items())
        return "{\n" + inner + "\n" + "  " * depth + "}"
    if isinstance(value, list):
        return "[" + ", ".join(format_json(item, depth) for item in value) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return exact(value).replace(",", "")
    return _quoted(value)


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
