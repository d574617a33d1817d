"""The SQL statement that docs/operating.md prescribes after a restore, run on a real database."""

import re
from pathlib import Path

from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

GUIDE = (Path(__file__).parents[2] / "docs/operating.md").read_text(encoding="utf-8")


def test_the_statement_after_a_restore_issues_unseen_cursors(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll({"n": 1})
    before = int(server.get("instances").headers["X-Feed-Cursor"])
    (statement,) = re.findall(r"^```sql\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    with admin_cursor(database) as cursor:
        cursor.execute(statement)
    install.snapshot({"n": 2})
    assert int(server.get("instances").headers["X-Feed-Cursor"]) > before + 1_000_000
