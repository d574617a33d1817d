"""Sanitizes the responses of one server, and restores texts for requests: they name a key as the server has it."""

from shm_tui.text.sanitizing import MAX_CHARS, sanitize, sanitize_json

MAX_RAW_TEXTS = 2_000  # texts that sanitizing changed; the oldest are forgotten, so installs cannot fill the memory


class ReversibleSanitizer:
    """The sanitizer of a client's responses. It remembers what sanitizing changed."""

    def __init__(self) -> None:
        self._raw: dict[str, str | None] = {}  # by sanitized form; None: it is also the raw form of another text
        self.keeps_plain_text = True  # no plain text that `restore` would change can be such a raw form

    def __call__(self, value: object) -> object:
        """A JSON value with every string in it sanitized."""
        return sanitize_json(value, clean=self._clean)

    def restore(self, text: str) -> str:
        """The text that the server has; of a nested key, each part may have been sanitized on its own."""
        if _is_never_changed(text):
            return text
        if text in self._raw:
            return self._raw[text] or text
        return ".".join(self._raw.get(part) or part for part in text.split("."))

    def _clean(self, text: str) -> str:
        clean = sanitize(text)
        if clean == text:
            if clean in self._raw:
                self._raw[clean] = None
        elif len(text) <= MAX_CHARS:
            known = self._raw.pop(clean, text)
            self._raw[clean] = known  # again the newest
            self.keeps_plain_text = self.keeps_plain_text and (_is_never_changed(clean) or not clean.isascii())
            if len(self._raw) > MAX_RAW_TEXTS:
                del self._raw[next(iter(self._raw))]
        return clean


def _is_never_changed(text: str) -> bool:
    """Such as 4, which another text may look like."""
    return text.isascii() and " " not in text
