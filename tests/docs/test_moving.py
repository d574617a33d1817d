"""docs/moving.md names the fields of each record of an export."""

import re
from pathlib import Path
from typing import get_args

from shm.ingest.export_records import FORMAT, VERSION, Record

GUIDE = (Path(__file__).parents[2] / "docs/moving.md").read_text(encoding="utf-8")


def test_the_guide_names_every_field_of_an_export() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+\| (.+) \|$", GUIDE.partition("\n## The file\n")[2], re.MULTILINE)
    documented = {name: re.findall(r"`(\w+)`", fields) for name, fields in rows if name != "type"}
    records = {each.__struct_config__.tag: each for each in get_args(Record)}
    assert documented.keys() == records.keys()
    for name, record in records.items():
        assert set(record.__struct_fields__) <= set(documented[name]), name
    assert f"`format` (`{FORMAT}`), `version` ({VERSION})" in GUIDE
