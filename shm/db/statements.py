"""Loads the named statements of sql/queries/*.sql, and of sql/original/*.sql for databases of the original server.

A statement begins at a line `-- name: title` and ends before the next such line; its name is `file.title`, such as
`instances.register`. Parameters are written `%(name)s`, a literal `%` as `%%`. A statement with `(prepared)` after its
name is prepared once on each connection: for frequent statements whose plan does not depend on their parameters.

The files of `sql/parts` contain fragments that several statements share, each after a line `-- part: name`. A line
`-- use: name` in a statement, or in another part, is replaced by the fragment. `{name_lock}` is replaced by the number
of an advisory lock.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shm.db.advisory_locks import substitute_lock_ids

STATEMENT_HEADER = re.compile(r"^-- name: ([a-z_]+)( \(prepared\))?$", re.MULTILINE)
PART_HEADER = re.compile(r"^-- part: ([a-z_]+)$", re.MULTILINE)
PART_REFERENCE = re.compile(r"^-- use: ([a-z_]+)$", re.MULTILINE)
LEADING_COMMENT = re.compile(r"\A(\s*--.*\n)+")  # removed, because it would be sent with every call
PARAMETER = re.compile(r"%\((\w+)\)s")
PROLOGUE = re.compile(r"\A(?:(?:SELECT pg_(?:advisory_xact_lock|notify)\([^;]+\)|SET LOCAL [^;]+);\s*)+")


@dataclass(frozen=True, slots=True)
class Statement:
    """`sql` is executed; `preparation`, if not None, has to be executed once on the connection before."""

    sql: str
    preparation: str | None = None


def sql_directory() -> Path:
    """The directory of all SQL: inside the installed package, or in the checkout next to it."""
    package = Path(__file__).parents[1]
    installed = package / "sql"
    return installed if installed.is_dir() else package.parent / "sql"


@cache
def statements() -> dict[str, Statement]:
    """Name -> statement for SHM's schema, loaded once."""
    return _load("queries")


@cache
def original_statements() -> dict[str, Statement]:
    """Name -> statement for the schema of the original server, loaded once."""
    return _load("original")


def _load(folder: str) -> dict[str, Statement]:
    by_name: dict[str, Statement] = {}
    for file in sorted((sql_directory() / folder).glob("*.sql")):
        parts = STATEMENT_HEADER.split(file.read_text(encoding="utf-8"))
        for title, is_prepared, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            name = f"{file.stem}.{title}"
            sql = LEADING_COMMENT.sub("", expand_parts(text)).strip().removesuffix(";")
            assert name not in by_name, name  # noqa: S101 - the second one would replace the first
            by_name[name] = _prepared(name, sql) if is_prepared else Statement(sql)
    return by_name


def expand_parts(text: str) -> str:
    """SQL with its shared parts and the numbers of its locks inserted."""
    return substitute_lock_ids(_insert_parts(text))


@cache
def fragment(name: str) -> str:
    """A part with the parts that it uses."""
    return expand_parts(_parts()[name])


def _insert_parts(text: str) -> str:
    return PART_REFERENCE.sub(lambda match: _insert_parts(_parts()[match[1]]), text)


@cache
def _parts() -> dict[str, str]:
    """Name -> fragment, in which other parts are not inserted yet."""
    by_name: dict[str, str] = {}
    for file in sorted((sql_directory() / "parts").glob("*.sql")):
        _, *parts = PART_HEADER.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            assert name not in by_name, name  # noqa: S101 - the second one would replace the first
            by_name[name] = LEADING_COMMENT.sub("", text).strip()
    return by_name


def to_positional(sql: str) -> tuple[str, list[str]]:
    """A statement with positional parameters (`$1`), as PREPARE requires, and the parameters' names in that order."""
    names = list(dict.fromkeys(PARAMETER.findall(sql)))
    text = PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", sql).replace("%%", "%")
    return text, names


def split_prologue(sql: str) -> tuple[str, str]:
    """The prologue of a statement, which acquires locks, notifies and makes settings, and the rest."""
    match = PROLOGUE.match(sql)
    prologue = match[0] if match else ""
    return prologue, sql[len(prologue) :]


def _prepared(name: str, sql: str) -> Statement:
    prologue, body = split_prologue(sql)
    text, names = to_positional(body)
    arguments = f" ({', '.join(f'%({parameter})s' for parameter in names)})" if names else ""
    return Statement(f'{prologue} EXECUTE "{name}"{arguments}'.strip(), f'PREPARE "{name}" AS {text}')
