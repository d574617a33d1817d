"""The control sequence that copies a text to the clipboard of the terminal, over SSH too (OSC 52)."""

from base64 import b64encode
from collections.abc import Mapping

MAX_BYTES = 74_994  # base64 makes 99,992 characters of them; xterm and tmux take up to 100,000
SCREEN_CHUNK = 512  # characters of a sequence that GNU screen passes through


def copy_sequence(text: str, environ: Mapping[str, str]) -> str | None:
    """The sequence that copies `text`, wrapped for tmux or GNU screen; None for a text that is too long."""
    data = text.encode()
    if len(data) > MAX_BYTES:
        return None
    sequence = f"\x1b]52;c;{b64encode(data).decode()}\x07"
    if environ.get("TMUX"):
        return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    if environ.get("STY"):
        chunks = [sequence[start : start + SCREEN_CHUNK] for start in range(0, len(sequence), SCREEN_CHUNK)]
        return "".join(f"\x1bP{chunk}\x1b\\" for chunk in chunks)
    return sequence
