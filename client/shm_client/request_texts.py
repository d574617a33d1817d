"""Texts in requests that read: names, conditions and lists of keys, each as the server has it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from .model import Restorer

METRICS = "metrics."  # before a metric's key
CONDITION = re.compile(
    r"(?P<prefix>metrics\.)?(?P<quote>\"?)(?P<key>.*?)(?P=quote)(?P<operator>>=|<=|!=|[<>=:])(?P<value>.*)", re.DOTALL
)
MAX_KEYS = 100  # metric keys in one request
MAX_KEYS_QUERY_CHARS = 4000  # proxies refuse longer URLs


class RequestTexts:
    """Restores the texts of requests. `restore` is that of the client: from a sanitized text to the original."""

    def __init__(self, restore: Restorer) -> None:
        self.restore = restore

    def name(self, name: str) -> str:
        """A column, or a metric's key with or without its prefix."""
        prefix = METRICS if name.startswith(METRICS) else ""
        return prefix + self.restore(name.removeprefix(prefix))

    def conditions(self, conditions: Sequence[str]) -> list[str]:
        """Conditions, with their keys and values."""
        return list(map(self._condition, conditions))

    def _condition(self, condition: str) -> str:
        match = CONDITION.fullmatch(condition)
        if match is None:
            return condition
        prefix, quote_mark, key = match["prefix"] or "", match["quote"] or "", match["key"]
        return f"{prefix}{quote_mark}{self.restore(key)}{quote_mark}{match['operator']}{self.restore(match['value'])}"

    def keys(self, keys: Iterable[str]) -> list[str]:
        """The values of a list parameter with these keys."""
        return _as_lists(map(_quote_key, map(self.restore, keys)))

    def key_batches(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """The same for more keys than one request has room for: the values of each request."""
        batch: list[str] = []
        size = 0
        for key in map(_quote_key, map(self.restore, keys)):
            length = len(quote(key)) + len("&keys=")
            if length > MAX_KEYS_QUERY_CHARS:
                continue
            if batch and (len(batch) == MAX_KEYS or size + length > MAX_KEYS_QUERY_CHARS):
                yield _as_lists(batch)
                batch, size = [], 0
            batch.append(key)
            size += length
        if batch:
            yield _as_lists(batch)


def _quote_key(key: str) -> str:
    """A key as an item of a list with commas."""
    return '"' + key.replace('"', '""') + '"' if "," in key else key


def _as_lists(items: Iterable[str]) -> list[str]:
    """The values of a list parameter with these items.

    An item that only begins with a double quote has a value of its own: in a list, the next quote might close it.
    """
    joined: list[str] = []
    alone: list[str] = []
    for item in items:
        (alone if item.startswith('"') and "," not in item else joined).append(item)
    return [*([",".join(joined)] if joined or not alone else []), *alone]
