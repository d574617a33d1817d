"""The commands of docs/operating.md that back up, restore and move a database, run in their order."""

import re
import shlex
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

from tests.support.cluster_template import create_data_dir
from tests.support.databases import empty_database
from tests.support.shm_command import run_shm

GUIDE = (Path(__file__).parents[2] / "docs/operating.md").read_text(encoding="utf-8")
BACKUP = GUIDE.partition("\n## Backup\n")[2].partition("\n## ")[0]


@pytest.mark.long
def test_the_documented_commands_back_up_and_restore(postgres: str, postgres_dir: Path) -> None:
    data_dir = create_data_dir(postgres_dir / "data")
    assert run_shm("migrate", SHM_DATA_DIR=str(data_dir)).returncode == 0
    blocks = re.findall(r"^```sh\n(.*?)^```", BACKUP, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("shm ") and "|" not in line]
    assert len(commands) == 8
    commands += re.findall(r"^(?:[\d*/]+ ){5} *\S+/(shm .*)$", BACKUP, re.MULTILINE)  # of the crontab
    assert len(commands) == 10
    with empty_database(postgres) as dsn:
        for command in commands:
            arguments = shlex.split(command, comments=True)[1:]
            for name, path in (
                ("shm.dump", postgres_dir / "shm.dump"),
                ("erased.jsonl", postgres_dir / "erased.jsonl"),
                ("/var/lib/shm-restored", postgres_dir / "restored"),
                ("/var/lib/shm-new", postgres_dir / "new"),
                ("/var/backups/shm", postgres_dir / "backups"),
                ("/var/backups/shm/erased.jsonl", postgres_dir / "backups/erased.jsonl"),
                ("postgresql:///shm_restored", dsn),
            ):
                arguments = [str(path) if argument == name else argument for argument in arguments]
            done = run_shm(*arguments, SHM_DATA_DIR=str(data_dir))
            assert done.returncode == 0, (command, done.stderr)
        assert f"createdb {parse_dsn('postgresql:///shm_restored')['dbname']}" in BACKUP
