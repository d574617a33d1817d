"""The one order of versions: a rank, a text that compares as the versions do. Pure.

Spellings of one release have one rank: `v1.2.3`, `1.2.3` and `1.2.3+build`, `1.0` and `1.0.0`, `1.5.0-rc.1` and
`1.5.0rc1`. Numbers compare as numbers. A pre-release comes before its release, a post-release or a packager's revision
after it. A name without a number (`main`, `unknown`, a commit's hash) comes before every release; no version is first.

A rank is compared by code points, never by a language's alphabet. Of a name it is `0` and the name. Of a release it is
`1`, its epoch and its numbers without zeros at the end, then one of the classes below. Every part begins with its
class, so that parts of different kinds are told apart by it: the earlier class has the smaller letter. A number is its
count of digits and the digits; a word ends with a dot, which comes before all that words are made of.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

CACHED = 4_096  # versions whose rank is remembered: a fleet has tens to hundreds, and tells one with each snapshot

# Pre-release words, in the order in which they lead to a release. What is built every day comes first.
CONTINUOUS = frozenset({"dev", "nightly", "daily", "snapshot", "canary", "edge", "next", "unstable"})
STAGES = dict.fromkeys(CONTINUOUS, 0) | {"alpha": 1, "beta": 2, "milestone": 3, "preview": 4, "pre": 4, "rc": 5}
UNNAMED_STAGE = 0  # of what only a tilde puts before its release, as in Debian's `1.5.0~20261101`
SPELLINGS = {"a": "alpha", "b": "beta", "m": "milestone", "c": "rc", "cr": "rc"}
REVISION = frozenset({"post", "rev", "r"})  # before a number: `1.0.post1`, `1.0-r1` and `1.0-1` are one release
RELEASE = frozenset({"final", "ga", "release", "stable"})  # behind a number they say nothing
PREFIXES = frozenset({"v", "ver", "version", "r", "rev", "rel", "release", "stable", "build", "b", "go"})

# Classes of what follows the numbers of a release, and of what follows its first part.
PRE, END, POST, SEGMENT = "b", "d", "f", "h"
TILDE, BEFORE, AFTER_NUMBER, AFTER_WORD = "a", "b", "f", "h"

# A word is made of all but digits, ASCII punctuation, space and control characters.
TOKEN = re.compile(r"[0-9]+|~|[^\x00-@\[-`{-\x7f]+")
EPOCH = re.compile(r"([0-9]+)[:!](?=.*[0-9])")
DATE = re.compile(r"(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01]))?(?![0-9])(?:\.[0-9]+)*")
NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+)*")
DOTTED = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+)+")
GO_PSEUDO = re.compile(r"-0(?=\.[0-9]{14}-[0-9a-f]{12}$)")  # Go's name of a commit before that release
HASH = re.compile(r"(?=[0-9]*[a-f])(?![0-9]{8}[a-c][0-9]{0,2}(?![0-9a-z]))[0-9a-f]{7,64}(?![0-9a-z.])")


@dataclass(frozen=True, slots=True)
class _Release:
    """A version with a number: `tail` is what follows its numbers, without `stage`, its pre-release word."""

    epoch: str
    numbers: tuple[str, ...]
    stage: str | None
    tail: tuple[str, ...]


@lru_cache(CACHED)
def version_rank(version: str) -> str:
    """What versions are compared by. Empty for one that says nothing."""
    text = _plain(version)
    release = _release(text)
    if release is None:
        return "0" + text if text else ""
    rank = ["1", _number(release.epoch), *(SEGMENT + _number(each) for each in release.numbers)]
    if release.stage is not None:
        rank.append(f"{PRE}{STAGES.get(release.stage, UNNAMED_STAGE)}{release.stage}.")
    elif release.tail:
        rank.append(POST)
    return "".join([*rank, *map(_part, release.tail), END])


def is_pre_release(version: str) -> bool:
    """Whether it comes before the release that it is numbered as."""
    release = _release(_plain(version))
    return release is not None and release.stage is not None


def is_release(version: str) -> bool:
    """Whether it has a number, so that it can be the latest."""
    return version_rank(version).startswith("1")


def _plain(version: str) -> str:
    """Lower case, digits of every script as 0 to 9, no control characters, no space around it."""
    digits = "".join(str(int(each)) if each.isdecimal() else each for each in version)
    return re.sub(r"[\x00-\x20\x7f]+", " ", digits).strip().lower()


def _release(text: str) -> _Release | None:
    text = GO_PSEUDO.sub("-dev", text.partition("+")[0].strip())
    epoch = "0"
    if found := EPOCH.match(text):
        epoch, text = found[1], text[found.end() :]
    start = _start(text)
    if start is None or HASH.match(text) or HASH.match(text, start):
        return None
    found = DATE.match(text, start) or NUMBERS.match(text, start)
    assert found is not None  # noqa: S101 - there is a digit at `start`
    numbers = re.split("[.-]", found[0])
    while len(numbers) > 1 and not numbers[-1].strip("0"):
        numbers.pop()
    channel = [each for each in TOKEN.findall(text[:start]) if each in STAGES]
    stage, tail = _staged([*channel, *TOKEN.findall(text[found.end() :])])
    return _Release(epoch, tuple(numbers), stage, tail)


def _start(text: str) -> int | None:
    """Where its numbers begin. Behind a word that says nothing of versions only a number with a dot is one."""
    first = re.search(r"[0-9]", text)
    if first is None:
        return None
    words = TOKEN.findall(text[: first.start()])
    if all(each in PREFIXES or each in STAGES for each in words):
        return first.start()
    dotted = DOTTED.search(text)
    return None if dotted is None else dotted.start()


def _staged(tokens: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """The pre-release word, if one stands before any number, and the other parts: those behind it first."""
    words = _words(tokens)
    for place, word in enumerate(words):
        if word.isdecimal():
            break
        spelt = word if word in STAGES else SPELLINGS.get(word) if place == 0 else None
        if spelt == "milestone" and word == "m" and not _is_number(words, place + 1):
            spelt = None  # as in 1.0.2m, a letter that counts
        if spelt is not None:
            return spelt, (*words[place + 1 :], *(each for each in words[:place] if each != "~"))
    if words and words[0] == "~":
        return "", tuple(words[1:])
    return None, tuple(words)


def _words(tokens: list[str]) -> list[str]:
    """Without what is spelling only: words that say that it is released, and those before a revision's number."""
    words = [each for each in tokens if each not in RELEASE]
    if words[1:] and words[0] == "~" and (words[1] in STAGES or words[1] in SPELLINGS):
        words = words[1:]
    kept: list[str] = []
    for place, word in enumerate(words):
        if word not in REVISION:
            kept.append(word)
        elif not _is_number(words, place + 1):
            kept.append("0" if word == "post" else word)
    return kept


def _is_number(words: list[str], place: int) -> bool:
    return place < len(words) and words[place].isdecimal()


def _part(part: str) -> str:
    """A part behind the first one. What leads to it comes before its end, numbers and other words after."""
    if part == "~":
        return TILDE
    if part.isdecimal():
        return AFTER_NUMBER + _number(part)
    return f"{BEFORE if part in CONTINUOUS else AFTER_WORD}{part}."


def _number(digits: str) -> str:
    """Shorter numbers are smaller: the count of digits as a letter, from 26 on as `z`, its own length and itself."""
    digits = digits.lstrip("0") or "0"
    length = len(digits)
    return (chr(ord("a") + length - 1) if length < 26 else f"z{len(str(length))}{length}") + digits
