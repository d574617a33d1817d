"""The words that decide the kind, the aggregate and the unit of a metric key. They are data: `metric_words.toml`.

A server reads them once at its start. `SHM_METRIC_WORDS` names a file whose members replace the built-in ones.
"""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from shm.core.aggregates import Aggregate

BUILT_IN = Path(__file__).with_name("metric_words.toml")
MAX_FILE_BYTES = 64 * 1024  # a hundred times the built-in file
WORD = r"^[^\W_A-Z]+\Z"  # a word as keys are split into; any other one would match no key

Word = Annotated[str, msgspec.Meta(pattern=WORD, max_length=64)]
Unit = Annotated[str, msgspec.Meta(max_length=16)]  # empty: none


class SystemWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key with one of these is a system metric."""

    prefixes: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...]
    words: frozenset[Word]


class AmbiguousWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Words that decide no aggregate at the end of a key."""

    last: frozenset[Word]


class MetricWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All words. `aggregates`: in the order of their precedence. `units`: by the last of several words."""

    system: SystemWords
    aggregates: dict[Aggregate, frozenset[Word]]
    ambiguous: AmbiguousWords
    units: dict[Word, Unit]

    def is_system(self, key: str, words: list[str]) -> bool:
        """Whether a key of these words is a system metric."""
        return key.startswith(self.system.prefixes) or not self.system.words.isdisjoint(words)

    def aggregate_of(self, words: list[str]) -> Aggregate:
        """The aggregate of a business metric with these words."""
        is_ambiguous = len(words) > 1 and words[-1] in self.ambiguous.last
        deciding = words[:-1] if is_ambiguous else words
        return next((name for name, listed in self.aggregates.items() if not listed.isdisjoint(deciding)), "sum")

    def unit_of(self, words: list[str]) -> str | None:
        """The unit of a metric with these words."""
        return (self.units.get(words[-1]) or None) if len(words) > 1 else None


@cache
def built_in() -> MetricWords:
    """The words that apply unless a server has others."""
    return msgspec.convert(tomllib.loads(BUILT_IN.read_text(encoding="utf-8")), MetricWords)


def read_metric_words(path: str) -> MetricWords:
    """The built-in words with the members of a file in their place. Raises ValueError."""
    try:
        with Path(path).expanduser().open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise ValueError(f"a file of at most {MAX_FILE_BYTES} bytes")
        changes = tomllib.loads(text.decode("utf-8-sig"))
        return msgspec.convert(_merge(changes), MetricWords)
    except OSError as error:
        raise ValueError(f"a readable file ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        detail = re.sub(r"\s+", " ", str(error))
        raise ValueError(f"a TOML file with the members of shm/core/metric_words.toml ({detail:.200})") from None


def _merge(changes: dict[str, Any]) -> dict[str, Any]:
    """The built-in file with the members of each section replaced."""
    merged: dict[str, Any] = tomllib.loads(BUILT_IN.read_text(encoding="utf-8"))
    for section, members in changes.items():
        is_section = isinstance(members, dict) and section in merged
        merged[section] = merged[section] | members if is_section else members
    return merged
