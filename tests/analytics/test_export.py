"""The export: each instance once, at any fleet size and despite concurrent changes."""

import csv
import io
import json
import unicodedata
from decimal import Decimal
from typing import Any

import psutil
import pytest

from shm.analytics.instance_fields import COLUMNS
from tests.support import plain_http
from tests.support.bulk_fleet import insert_fleet
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.cluster

FLEET = 2_000
KIB_PER_INSTALL = 50
MAX_MEMORY_GROWTH = 50 * 2**20  # bytes of the server's memory, during an export of a hundred MiB


def export_rows(server: ServerProcess, query: str = "") -> list[dict[str, str]]:
    """The rows of a CSV export."""
    return list(csv.DictReader(io.StringIO(server.get(f"export?{query}").content.decode(), newline="")))


def report_exact_metrics(server: ServerProcess, metrics: bytes, app_name: str = "Ledger") -> Install:
    """An install whose snapshot has exactly this metrics object."""
    install = Install(server.url, app_name)
    install.register()
    body = install.snapshot_body("METRICS").replace(b'"METRICS"', metrics)
    assert install.post("/v1/snapshot", body, install.signed(body)).status_code == 202
    return install


def test_csv_has_a_column_for_each_metric_and_keeps_every_digit(server: ServerProcess) -> None:
    first = report_exact_metrics(server, b'{"a": 1.50, "mail": {"sent": 123456789012345678901234567890}, "tags": [1]}')
    second = report_exact_metrics(server, b'{"beta": true, "plan": "a, \\"b\\"\\n\\u00e9"}', app_name="Kiosk")
    pending = Install(server.url)
    pending.register()
    response = server.get("export")
    assert response.headers["Content-Type"] == "text/csv"
    assert response.headers["Content-Disposition"] == 'attachment; filename="instances.csv"'
    assert response.headers["X-Metrics-Left-Out"] == "0"
    assert int(response.headers["X-Feed-Cursor"]) > 0
    rows = {row["instance_id"]: row for row in export_rows(server)}
    metrics = ["metrics.a", "metrics.beta", "metrics.mail.sent", "metrics.plan"]
    assert [*rows[first.instance_id]] == [*COLUMNS, *metrics]
    assert [rows[first.instance_id][name] for name in metrics] == ["1.50", "", "123456789012345678901234567890", ""]
    assert [rows[second.instance_id][name] for name in metrics] == ["", "true", "", 'a, "b"\né']
    assert [rows[pending.instance_id][name] for name in ("status", "last_seen_at", "counted")] == [
        "pending",
        "",
        "false",
    ]
    item = server.get(f"instances/{first.instance_id}").json()
    for name in [name for name in COLUMNS if name != "counted"]:
        assert rows[first.instance_id][name] == (item[name] or "")


def test_filters_apply_to_the_rows_and_columns_of_an_export(server: ServerProcess) -> None:
    first = Install(server.url).enroll({"a": 1})
    Install(server.url, app_name="Kiosk").enroll({"b": 1})
    (row,) = export_rows(server, "app=Ledger&status=active&q=docker")
    assert (row["instance_id"], row["metrics.a"]) == (first.instance_id, "1")
    assert "metrics.b" not in row
    assert export_rows(server, "status=revoked") == export_rows(server, "app=nobody") == []
    assert server.get("export?app=nobody&format=jsonl").content == b""


def test_texts_are_escaped_for_spreadsheets_and_numbers_are_not(server: ServerProcess) -> None:
    formulas = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\n=1", "\x01=1", " =1", "\u00a0=1", "\u200b=1", "\ufeff=1"]
    formulas += ["＝1+1", "＋1", "－1", "＠x", "﹦1", "−1", "\u202e＝1"]
    texts = [*formulas, "'", "x=1", "", "é", "北京", "a;b", '"=1"']
    for text in texts:
        Install(server.url, app_version="=v", environment="-e").enroll({"plan": text, "n": -1.5, "=k": "+"})
    rows = export_rows(server)
    expected = {"'" + text if text in formulas else text for text in texts} - {"'\n=1"} | {"'\n'=1"}
    assert {row["metrics.plan"] for row in rows} == expected
    assert {(row["metrics.n"], row["app_version"], row["environment"], row["metrics.=k"]) for row in rows} == {
        ("-1.5", "'=v", "'-e", "'+")
    }
    assert not any(name.startswith(("=", "+", "-", "@")) for name in rows[0])


@pytest.mark.parametrize("separator", [";", "\t", "|", "\r", "\n"])
def test_no_other_separator_lets_a_cell_begin_with_a_formula(shared_server: ServerProcess, separator: str) -> None:
    """Read by a spreadsheet whose list separator is not the comma: it ignores quotes within a line."""
    server = shared_server
    hostile = f"a{ord(separator)}{separator}=1+1{separator} +1{separator}\uff1d1{separator}b - 1"
    install = Install(server.url, app_name=hostile, app_version=hostile)
    install.enroll({"plan": hostile, f"k{separator}=1": "x"})
    slug = server.get(f"instances/{install.instance_id}").json()["app_slug"]
    content = server.get(f"export?app={slug}").content.decode()
    cells = [cell for line in content.splitlines() for cell in line.split(separator)]
    assert any("=1+1" in cell for cell in cells)
    assert [
        cell for cell in cells if unicodedata.normalize("NFKC", cell).strip().startswith(("=", "+", "-", "@"))
    ] == []
    assert hostile.replace("=1+1", "'=1+1").replace(" +1", "' +1").replace("\uff1d", "'\uff1d") in content


def test_every_cell_is_quoted(server: ServerProcess) -> None:
    Install(server.url).enroll({"n": -1.5, "text": 'a "b"', "on": True})
    header, row, end = server.get("export").content.decode().split("\r\n")
    for line in (header, row):
        assert line.startswith('"')
        assert line.endswith('"')
        assert len(line.split('","')) == len(next(csv.reader([line])))
    assert '"-1.5"' in row
    assert '"a ""b"""' in row
    assert end == ""


def test_metrics_without_a_column_are_counted(server: ServerProcess) -> None:
    for half in range(3):
        Install(server.url).enroll({f"k{half}_{number}": 1 for number in range(200)} | {"often": 1})
    response = server.get("export")
    assert response.headers["X-Metrics-Left-Out"] == "101"
    header = next(csv.reader([response.text.splitlines()[0]]))
    assert len(header) == len(COLUMNS) + 500
    assert "metrics.often" in header


def test_json_lines_are_the_items_of_the_list(server: ServerProcess) -> None:
    report_exact_metrics(server, b'{"a": 1.50, "mail": {"sent": [1, null]}, "text": "\\n\\u2028"}')
    Install(server.url).register()
    response = server.get("export?format=jsonl")
    assert response.headers["Content-Type"] == "application/jsonl"
    lines = [json.loads(line, parse_float=Decimal) for line in response.content.decode().split("\n")[:-1]]
    listed = json.loads(server.get("instances").content, parse_float=Decimal)
    assert sorted(lines, key=instance_id_of) == sorted(listed, key=instance_id_of)
    assert [*map(instance_id_of, lines)] == sorted(map(instance_id_of, lines))
    assert '"a": 1.50' in response.text


def instance_id_of(item: dict[str, Any]) -> str:
    """The ID of an instance."""
    return str(item["instance_id"])


@pytest.mark.long
def test_the_export_of_a_large_fleet_needs_little_memory(server: ServerProcess, database: str) -> None:
    """The client reads one chunk, pauses, and then reads the rest."""
    insert_fleet(database, FLEET, KIB_PER_INSTALL)
    Install(server.url).enroll({"n": 1})
    process = psutil.Process(server.pid)
    before = peak = process.memory_info().rss
    text = bytearray()
    address = f"{server.url}/api/v1/admin/export?format=jsonl"
    with plain_http.stream("GET", address, headers=server.headers, timeout=60) as response:
        chunks = response.iter_raw()
        text += next(chunks)
        for _ in range(10):
            Install(server.url, app_version="9").enroll({"n": 1})
            assert len(server.get("instances?limit=10").json()) == 10
            peak = max(peak, process.memory_info().rss)
        for number, chunk in enumerate(chunks):
            text += chunk
            if number % 50 == 0:
                peak = max(peak, process.memory_info().rss)
    ids = [json.loads(line)["instance_id"] for line in text.decode().splitlines()]
    assert len(ids) == len(set(ids))
    assert FLEET < len(ids) <= FLEET + 11
    assert len(text) > FLEET * KIB_PER_INSTALL * 1024
    assert peak - before < MAX_MEMORY_GROWTH
