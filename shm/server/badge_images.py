"""Badges as SVG: a label and a value on two flat rectangles. Pure. Texts are escaped, and limited in length."""

import re
import unicodedata
from decimal import Decimal
from xml.sax.saxutils import escape, quoteattr

GREEN, BLUE, YELLOW, RED = "#1a7f4b", "#2563c9", "#9a6200", "#c53030"  # white text has a contrast above 4.5 on each
PURPLE, INDIGO, GRAY, LABEL = "#6d4bc3", "#4a51c9", "#5f6673", "#484f58"
COLOR = re.compile(r"#?([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})")
MAX_TEXT = 64  # characters; more is no badge
HEIGHT, PADDING = 20, 6  # pixels
NARROW, BROAD = set("fijlrtI.,:;'|!()[] "), set("mwMW%@")
CHARACTER_WIDTH, NARROW_WIDTH, BROAD_WIDTH, FULL_WIDTH = 7.0, 4.5, 10.0, 12.0  # pixels, in Verdana of 11 pixels
SUFFIXES = ((Decimal(10) ** 9, "B"), (Decimal(10) ** 6, "M"), (Decimal(1000), "k"))


def render(label: str, value: str, color: str) -> bytes:
    """The image. `color` is trusted; the texts may come from anybody."""
    label, value = _clean(label), _clean(value)
    label_width, value_width = _width(label), _width(value)
    total = label_width + value_width
    title = f"{label}: {value}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{HEIGHT}" role="img" '
        f"aria-label={quoteattr(title)}><title>{escape(title)}</title>"
        f'<rect width="{label_width}" height="{HEIGHT}" fill="{LABEL}"/>'
        f'<rect x="{label_width}" width="{value_width}" height="{HEIGHT}" fill="{color}"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{label_width / 2}" y="14">{escape(label)}</text>'
        f'<text x="{label_width + value_width / 2}" y="14">{escape(value)}</text></g></svg>'
    ).encode()


def parse_color(text: str | None, default: str) -> str:
    """Three or six hex digits, with or without `#`; the default for anything else."""
    match = COLOR.fullmatch(text or "")
    return f"#{match[1].lower()}" if match else default


def format_number(number: Decimal) -> str:
    """`999`, `1.2k`, `4.0M`, `1.5B`; below a thousand with one decimal, if it is not whole."""
    for limit, suffix in SUFFIXES:
        if abs(number) >= limit or round(abs(number) / (limit / 1000), 1) >= 1000:  # 999,950 is 1.0M
            return f"{number / limit:.1f}{suffix}"
    text = f"{number:.1f}"
    return text.removesuffix(".0").replace("-0", "0") if text.endswith(".0") else text


def color_of_instances(count: int) -> str:
    """By the size of the fleet."""
    return GREEN if count >= 10 else YELLOW if count >= 5 else RED


def color_of_metric(value: Decimal) -> str:
    """By the size of the value."""
    return GREEN if value >= 1000 else BLUE if value >= 100 else YELLOW if value > 0 else GRAY


def _clean(text: str) -> str:
    """Without characters that XML forbids, or that are invisible or change the direction of others."""
    shown = "".join(character for character in text if character.isprintable())
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 1]}…"


def _width(text: str) -> int:
    """The width of a rectangle around a text, in pixels."""
    return round(sum(map(_character_width, text))) + 2 * PADDING


def _character_width(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return FULL_WIDTH
    if character in NARROW:
        return NARROW_WIDTH
    return BROAD_WIDTH if character in BROAD else CHARACTER_WIDTH
