"""sql/queries/*.sql -> named statements.

A statement begins at a line `-- name: topic words` and ends before the next; its name is `file.name`, such as
`instances.register`. Parameters are written `%(name)s`, and `%` itself `%%`. One with `(prepared)` behind its name is
planned once on each connection: for what runs all the time, and whose plan does not hang on its parameters.

What statements have in common stands once in `sql/parts.sql`, each part after a line `-- part: name`; a statement has
it at its line `-- use: name`, and so has a part those above it. `{name_lock}` is the number of an advisory lock.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shm.db.advisory_locks import substitute_lock_ids

NAME = re.compile(r"^-- name: ([a-z_]+)( \(prepared\))?$", re.MULTILINE)
PART = re.compile(r"^-- part: ([a-z_]+)$", re.MULTILINE)
USE = re.compile(r"^-- use: ([a-z_]+)$", re.MULTILINE)
LEADING_COMMENT = re.compile(r"\A(\s*--.*\n)+")  # for people; sent with every call it would only cost
PARAMETER = re.compile(r"%\((\w+)\)s")
BEFORE = re.compile(r"\A(?:(?:SELECT pg_advisory_xact_lock\([0-9]+\)|SET LOCAL [^;]+);\s*)+")


@dataclass(frozen=True, slots=True)
class Statement:
    """`sql` is what runs. `preparation`, where there is one, has to run on a connection before."""

    sql: str
    preparation: str | None = None


def sql_directory() -> Path:
    """The folder of all SQL: inside the installed package, or in the checkout beside it."""
    package = Path(__file__).parents[1]
    installed = package / "sql"
    return installed if installed.is_dir() else package.parent / "sql"


@cache
def statements() -> dict[str, Statement]:
    """Every named statement, read once."""
    found: dict[str, Statement] = {}
    for file in sorted((sql_directory() / "queries").glob("*.sql")):
        parts = NAME.split(file.read_text(encoding="utf-8"))
        for short, prepared, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            name = f"{file.stem}.{short}"
            sql = LEADING_COMMENT.sub("", expand_parts(text)).strip().removesuffix(";")
            assert name not in found, name  # noqa: S101 - the second would quietly win
            found[name] = _prepared(name, sql) if prepared else Statement(sql)
    return found


def expand_parts(text: str) -> str:
    """SQL with the parts in common and the locks' numbers in their places."""
    return substitute_lock_ids(USE.sub(lambda match: _parts()[match[1]], text))


@cache
def _parts() -> dict[str, str]:
    _, *parts = PART.split((sql_directory() / "parts.sql").read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        whole = USE.sub(lambda match: found[match[1]], text)
        found[name] = LEADING_COMMENT.sub("", whole).strip()
    return found


def to_positional(sql: str) -> tuple[str, list[str]]:
    """A statement as PREPARE wants it, with `$1` for its first parameter, and the parameters in that order."""
    names = list(dict.fromkeys(PARAMETER.findall(sql)))
    text = PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", sql).replace("%%", "%")
    return text, names


def split_prologue(sql: str) -> tuple[str, str]:
    """What comes before the statement itself in its transaction, locks and settings, and the statement."""
    match = BEFORE.match(sql)
    before = match[0] if match else ""
    return before, sql[len(before) :]


def _prepared(name: str, sql: str) -> Statement:
    before, body = split_prologue(sql)
    text, names = to_positional(body)
    arguments = f" ({', '.join(f'%({each})s' for each in names)})" if names else ""
    return Statement(f'{before} EXECUTE "{name}"{arguments}'.strip(), f'PREPARE "{name}" AS {text}')
