"""The order of versions: each version has a rank, a text that compares as the versions do. Pure.

Spellings of one release have the same rank: `v1.2.3`, `1.2.3` and `1.2.3+build`, `1.0` and `1.0.0`, `1.5.0-rc.1` and
`1.5.0rc1`. Numbers compare as numbers. A pre-release comes before its release, a post-release or a packager's revision
after it. A name without a number (`main`, `unknown`, a commit's hash) comes before every release; an empty version
comes first.

Ranks are compared by code points, never by a locale's collation. The rank of a name is `0` and the name. The rank of a
release is `1`, its epoch, its numbers without trailing zeros, then one of the classes below. Every part begins with
the letter of its class, and an earlier class has a smaller letter. A number is written as its count of digits and its
digits; a word ends with a dot, which is smaller than every character of a word.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

CACHE_SIZE = 4_096  # versions: a fleet has tens to hundreds, and each snapshot sends one

# Pre-release words in the order of a release cycle. Daily builds come first.
DEVELOPMENT_WORDS = frozenset({"dev", "nightly", "daily", "snapshot", "canary", "edge", "next", "unstable"})
STAGES = dict.fromkeys(DEVELOPMENT_WORDS, 0) | {"alpha": 1, "beta": 2, "milestone": 3, "preview": 4, "pre": 4, "rc": 5}
UNNAMED_STAGE = 0  # a pre-release that only a tilde marks, as in Debian's `1.5.0~20261101`
STAGE_ALIASES = {"a": "alpha", "b": "beta", "m": "milestone", "c": "rc", "cr": "rc"}
REVISION_WORDS = frozenset({"post", "rev", "r"})  # before a number: `1.0.post1`, `1.0-r1` and `1.0-1` are one release
RELEASE_WORDS = frozenset({"final", "ga", "release", "stable"})  # after a number they have no meaning
VERSION_PREFIXES = frozenset({"v", "ver", "version", "r", "rev", "rel", "release", "stable", "build", "b", "go"})

# Classes of the part that follows the numbers of a release, and of the parts after that one.
PRE, END, POST, SEGMENT = "b", "d", "f", "h"
TILDE, BEFORE, AFTER_NUMBER, AFTER_WORD = "a", "b", "f", "h"

# A word consists of any characters except digits, ASCII punctuation, space and control characters.
TOKEN = re.compile(r"[0-9]+|~|[^\x00-@\[-`{-\x7f]+")
EPOCH = re.compile(r"([0-9]+)[:!](?=.*[0-9])")
DATE = re.compile(r"(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01]))?(?![0-9])(?:\.[0-9]+)*")
NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+)*")
DOTTED = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+)+")
GO_PSEUDO = re.compile(r"-0(?=\.[0-9]{14}-[0-9a-f]{12}$)")  # Go's pseudo-version of a commit before that release
HASH = re.compile(r"(?=[0-9]*[a-f])(?![0-9]{8}[a-c][0-9]{0,2}(?![0-9a-z]))[0-9a-f]{7,64}(?![0-9a-z.])")


@dataclass(frozen=True, slots=True)
class _Release:
    """A parsed version with a number. `stage` is its pre-release word, `tail` the other parts after the numbers."""

    epoch: str
    numbers: tuple[str, ...]
    stage: str | None
    tail: tuple[str, ...]


@lru_cache(CACHE_SIZE)
def version_rank(version: str) -> str:
    """The sort key of a version; empty for an empty version."""
    text = _normalize(version)
    release = _parse_release(text)
    if release is None:
        return "0" + text if text else ""
    rank = ["1", _rank_number(release.epoch), *(SEGMENT + _rank_number(number) for number in release.numbers)]
    if release.stage is not None:
        rank.append(f"{PRE}{STAGES.get(release.stage, UNNAMED_STAGE)}{release.stage}.")
    elif release.tail:
        rank.append(POST)
    return "".join([*rank, *map(_rank_part, release.tail), END])


def is_pre_release(version: str) -> bool:
    """Whether the version comes before the release of the same number."""
    release = _parse_release(_normalize(version))
    return release is not None and release.stage is not None


def is_release(version: str) -> bool:
    """Whether the version has a number, so that it can be the latest."""
    return version_rank(version).startswith("1")


def _normalize(version: str) -> str:
    """Lower case, digits of every script as 0 to 9, no control characters, no surrounding space."""
    digits = "".join(str(int(character)) if character.isdecimal() else character for character in version)
    return re.sub(r"[\x00-\x20\x7f]+", " ", digits).strip().lower()


def _parse_release(text: str) -> _Release | None:
    text = GO_PSEUDO.sub("-dev", text.partition("+")[0].strip())
    epoch = "0"
    if found := EPOCH.match(text):
        epoch, text = found[1], text[found.end() :]
    start = _numbers_start(text)
    if start is None or HASH.match(text) or HASH.match(text, start):
        return None
    found = DATE.match(text, start) or NUMBERS.match(text, start)
    assert found is not None  # noqa: S101 - there is a digit at `start`
    numbers = re.split("[.-]", found[0])
    while len(numbers) > 1 and not numbers[-1].strip("0"):
        numbers.pop()
    stages_before_numbers = [word for word in TOKEN.findall(text[:start]) if word in STAGES]
    stage, tail = _split_stage([*stages_before_numbers, *TOKEN.findall(text[found.end() :])])
    return _Release(epoch, tuple(numbers), stage, tail)


def _numbers_start(text: str) -> int | None:
    """The index of the first version number. After a word unknown in versions, only a dotted number is one."""
    first = re.search(r"[0-9]", text)
    if first is None:
        return None
    words = TOKEN.findall(text[: first.start()])
    if all(word in VERSION_PREFIXES or word in STAGES for word in words):
        return first.start()
    dotted = DOTTED.search(text)
    return None if dotted is None else dotted.start()


def _split_stage(tokens: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """The pre-release word, if one precedes any number, and the other parts: those after the word first."""
    words = _significant_words(tokens)
    for index, word in enumerate(words):
        if word.isdecimal():
            break
        stage = word if word in STAGES else STAGE_ALIASES.get(word) if index == 0 else None
        if stage == "milestone" and word == "m" and not _is_number(words, index + 1):
            stage = None  # a patch letter, as in 1.0.2m
        if stage is not None:
            return stage, (*words[index + 1 :], *(part for part in words[:index] if part != "~"))
    if words and words[0] == "~":
        return "", tuple(words[1:])
    return None, tuple(words)


def _significant_words(tokens: list[str]) -> list[str]:
    """The tokens that change the order: without release words, and without words before a revision's number."""
    words = [token for token in tokens if token not in RELEASE_WORDS]
    if words[1:] and words[0] == "~" and (words[1] in STAGES or words[1] in STAGE_ALIASES):
        words = words[1:]
    significant: list[str] = []
    for index, word in enumerate(words):
        if word not in REVISION_WORDS:
            significant.append(word)
        elif not _is_number(words, index + 1):
            significant.append("0" if word == "post" else word)
    return significant


def _is_number(words: list[str], index: int) -> bool:
    return index < len(words) and words[index].isdecimal()


def _rank_part(part: str) -> str:
    """The rank of a part after the first. A tilde and a pre-release word rank below the end, anything else above."""
    if part == "~":
        return TILDE
    if part.isdecimal():
        return AFTER_NUMBER + _rank_number(part)
    return f"{BEFORE if part in DEVELOPMENT_WORDS else AFTER_WORD}{part}."


def _rank_number(digits: str) -> str:
    """The count of digits, then the digits. The count is a letter; from 26 on `z`, the count's length and the count."""
    digits = digits.lstrip("0") or "0"
    length = len(digits)
    return (chr(ord("a") + length - 1) if length < 26 else f"z{len(str(length))}{length}") + digits
