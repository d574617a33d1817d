"""sql/queries/*.sql -> named statements.

A statement begins at a line `-- name: topic words` and ends before the next; its name is `file.name`, such as
`instances.register`. Parameters are written `%(name)s`, and `%` itself `%%`.
"""

import re
from functools import cache
from pathlib import Path

NAME = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)
LEADING_COMMENT = re.compile(r"\A(\s*--.*\n)+")  # for people; sent with every call it would only cost


def sql_folder() -> Path:
    """The folder of all SQL: inside the installed package, or in the checkout beside it."""
    installed = Path(__file__).parent / "sql"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "sql"


@cache
def statements() -> dict[str, str]:
    """Every named statement, read once."""
    found: dict[str, str] = {}
    for file in sorted((sql_folder() / "queries").glob("*.sql")):
        parts = NAME.split(file.read_text(encoding="utf-8"))
        for name, statement in zip(parts[1::2], parts[2::2], strict=True):
            found[f"{file.stem}.{name}"] = LEADING_COMMENT.sub("", statement).strip().removesuffix(";")
    return found
