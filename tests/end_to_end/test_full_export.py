"""`shm export --all` and `shm import`: everything of one server in another, and what damaged or hostile files get."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from shm.core.settings import Settings
from shm.db.database import Database
from shm.ingest.export_records import FORMAT, VERSION, End, Header, InstanceRecord, encode_record
from shm.ingest.full_export import FullExport
from shm.ingest.full_import import FullImport
from shm.ingest.history_import import SKIPPED_DAYS, HistoryImporter
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.databases import admin_cursor, execute, fresh_database, select_column
from tests.support.installs import Install
from tests.support.old_partitions import CREATE_OLD_PARTITIONS_SQL
from tests.support.oracle import assert_matches_oracle, assert_series_match_oracle
from tests.support.random_fleets import (
    AdvanceTime,
    Age,
    ChangeStatus,
    Fleet,
    Reregister,
    RollUp,
    Scenario,
    SendBacklog,
    SendSnapshot,
    SetOverrides,
    SnapshotContent,
    run_scenario,
    scenarios,
)
from tests.support.server_pool import empty_tables
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm

LARGE_EXAMPLES = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

# Everything that is moved, without cursors of the feed and what an install said before it proved its key.
TABLES = {
    "applications": "to_jsonb(t) - '{updated_at,days_source}'::text[]",
    "application_aliases": "to_jsonb(t) - 'created_at'",
    "instances": "to_jsonb(t) - '{cursor,app_cursor,staged}'::text[]",
    "snapshots": "to_jsonb(t) - 'cursor'",
    "metric_hints": "to_jsonb(t)",
    "absences": "to_jsonb(t)",
    "versions_seen": "to_jsonb(t)",
    "tallies": "to_jsonb(t) || jsonb_build_object("
    "'total', trim_scale(t.total), 'counted_total', trim_scale(t.counted_total))",
    "series_hours": "to_jsonb(t) || jsonb_build_object('total', trim_scale(t.total))",
    "series_days": "to_jsonb(t) || jsonb_build_object('total', trim_scale(t.total))",
}
# A sum of zero says the same as no row. Charts read hours of the last days only, and they cannot be computed without
# the snapshots of the time before.
CONDITIONS = {
    "tallies": "WHERE t.instances <> 0 OR t.total <> 0",
    "series_days": "WHERE t.instances <> 0 OR t.total <> 0",
    "series_hours": "WHERE (t.instances <> 0 OR t.total <> 0) AND t.at > now() - interval '60 days'",
}


def read_tables(dsn: str) -> dict[str, list[Any]]:
    tables = {}
    with admin_cursor(dsn) as cursor:
        for table, row in TABLES.items():
            cursor.execute(f"SELECT ({row})::text FROM {table} t {CONDITIONS.get(table, '')} ORDER BY 1")  # noqa: S608
            tables[table] = [row for (row,) in cursor.fetchall()]
    return tables


def export(dsn: str, file: Path) -> list[dict[str, Any]]:
    """Writes an export, and returns its records."""
    done = run_shm("export", "--all", "--output", str(file), SHM_DB_DSN=dsn)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return [json.loads(line) for line in file.read_text().splitlines()]


def run_import(dsn: str, file: Path) -> list[str]:
    """Imports a file, and returns the summary."""
    done = run_shm("import", str(file), SHM_DB_DSN=dsn)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def refusal(dsn: str, file: Path) -> str:
    """The last line of an import that ends with status 1."""
    done = run_shm("import", str(file), SHM_DB_DSN=dsn)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture
def target(postgres: str) -> Iterator[str]:
    """The DSN of another database, with SHM's tables."""
    with fresh_database(postgres) as dsn:
        yield dsn


def snapshot(hours: int, metrics: dict[str, Any], version: str | None = None) -> SnapshotContent:
    return SnapshotContent(Age(hours=hours), metrics, version)


BUSY_FLEET = Scenario(
    [("Ledger", "production"), ("Ledger", "ci"), ("Kiosk", "production"), ("Ledger", "")],
    [
        SendBacklog(0, [snapshot(hours, {"sent": hours, "mail": {"sent": 1.50}}) for hours in (600, 300, 40)]),
        SendSnapshot(1, snapshot(0, {"sent": 2**70, "plan": "postgres", "list": [1]}, "v1.0.0")),
        SendSnapshot(2, snapshot(30, {"sent": 3, "beta": True})),
        SendSnapshot(3, snapshot(2, {"sent": 9, "sys_ephemeral": True}, "2.0-rc1")),
        RollUp(),
        AdvanceTime(31),
        SendSnapshot(0, snapshot(0, {"sent": 8})),  # returns after an absence
        Reregister(2, "Ledger", "1.10", "production", activates=True),  # leaves its application
        SendSnapshot(2, snapshot(0, {"sent": 4})),
        ChangeStatus(1, "revoke"),
        SetOverrides("ledger", {"sent": {"label": "Sent", "aggregate": "max"}}),
    ],
)


@pytest.fixture
def source(database: str, serve: Callable[..., ServerProcess]) -> Iterator[tuple[Fleet, BackgroundJobs]]:
    """A server that runs no background jobs of its own, and its fleet."""
    with run_background_jobs(database) as background:
        server = serve()
        yield Fleet(server, database, datetime.now(UTC), lambda: background.run("roll up")), background


def test_an_export_moves_everything(source: tuple[Fleet, BackgroundJobs], target: str, tmp_path: Path) -> None:
    """Tables, figures and charts are the same, the installs go on reporting, and a second import changes nothing."""
    fleet, background = source
    run_scenario(BUSY_FLEET, fleet, background.run)
    waiting = Install(fleet.server.url, app_name="Ledger")
    assert waiting.register().status_code == 201
    fleet.request_admin("PUT", "applications/kiosk", {"name": "Counter", "public_metrics": ["sent"]})
    execute(fleet.database, "INSERT INTO application_aliases (slug, app_slug) VALUES ('till', 'kiosk')")
    background.run()
    file = tmp_path / "everything.jsonl"
    records = export(fleet.database, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (records[0]["type"], records[-1]) == ("header", {"type": "end", "records": len(records) - 1})

    lines, part = file.read_bytes().splitlines(keepends=True), tmp_path / "part.jsonl"
    part.write_bytes(b"".join(lines[:7]))
    assert "the file ends before its last line" in refusal(target, part)
    assert run_import(target, file)[-1].startswith("already stored: ")
    with run_background_jobs(target) as jobs:
        moved = ServerProcess(tmp_path / "moved", {"SHM_DB_DSN": target})
        moved.start()
        try:
            jobs.run()
            assert read_tables(target) == read_tables(fleet.database)
            assert jobs.differences() == {}
            assert_matches_oracle(moved, target)
            assert_series_match_oracle(moved, target, periods=("30d",))
            assert run_import(target, file) == [
                "imported 0 applications, 0 installs and 0 snapshots",
                "already stored: 5 installs and 8 snapshots",
            ]
            for install, status in zip(fleet.installs, (202, 403, 202, 202), strict=True):
                install.url = moved.url
                assert install.snapshot({"sent": 10}).status_code == status
        finally:
            moved.terminate()


@pytest.mark.parametrize("are_deleted", [True, pytest.param(False, marks=pytest.mark.long)])
def test_values_of_charts_older_than_the_raw_snapshots_are_moved(
    source: tuple[Fleet, BackgroundJobs], target: str, tmp_path: Path, are_deleted: bool
) -> None:
    """They cannot be computed from the snapshots any more, or not for long, so the export contains them."""
    fleet, background = source
    if are_deleted:
        execute(fleet.database, CREATE_OLD_PARTITIONS_SQL, timedelta(days=210), timedelta(days=7))
    install = Install(fleet.server.url, app_name="Ledger").enroll()
    assert install.snapshot({"sent": 5}).status_code == 202
    background.run("roll up")
    AdvanceTime(120).apply(fleet)
    background.run()
    assert install.snapshot({"sent": 7}).status_code == 202
    background.run()
    assert select_column(fleet.database, "SELECT count(*) FROM snapshots") == [1 if are_deleted else 3]
    file = tmp_path / "everything.jsonl"
    kinds = [record["type"] for record in export(fleet.database, file)]
    assert {"history", "day"} <= set(kinds)
    summary = run_import(target, file)
    assert f"imported {kinds.count('day')} daily values of charts from before the oldest snapshot" in summary
    with run_background_jobs(target) as jobs:
        jobs.run()
        tables, expected = read_tables(target), read_tables(fleet.database)
        assert tables.pop("snapshots") == [row for row in expected.pop("snapshots") if '"sent": 7' in row]
        assert tables == expected
        assert jobs.differences() == {}
    if are_deleted:
        check_days_are_not_mixed(target, file, kinds)


@pytest.mark.parametrize("are_deleted", [False, True])
def test_the_snapshot_that_a_silent_install_shows_is_moved(
    source: tuple[Fleet, BackgroundJobs], target: str, tmp_path: Path, are_deleted: bool
) -> None:
    """It is older than the retention, and its raw snapshot may be deleted here or have no partition there."""
    fleet, background = source
    if are_deleted:
        for database in (fleet.database, target):
            execute(database, CREATE_OLD_PARTITIONS_SQL, timedelta(days=210), timedelta(days=7))
    silent = Install(fleet.server.url, app_name="Ledger").enroll()
    for sent in (4, 5):
        assert silent.snapshot({"sent": sent, "plan": "small"}).status_code == 202
    background.run("roll up")
    AdvanceTime(120).apply(fleet)
    background.run()
    file = tmp_path / "everything.jsonl"
    snapshots = [record for record in export(fleet.database, file) if record["type"] == "snapshot"]
    assert [each["metrics"] for each in snapshots] == [{"sent": 5, "plan": "small"}]
    for _ in range(2):
        run_import(target, file)
        with run_background_jobs(target) as jobs:
            jobs.run()
            tables, expected = read_tables(target), read_tables(fleet.database)
            del tables["snapshots"], expected["snapshots"]
            assert tables == expected
            assert jobs.differences() == {}


def check_days_are_not_mixed(target: str, file: Path, kinds: list[str]) -> None:
    """An application has the older days of one server, which an interrupted import completes."""
    part, other, days = file.with_suffix(".part"), file.with_suffix(".other"), kinds.count("day")
    part.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[: kinds.index("day") + 1]))
    empty_tables(target)
    assert "the file ends before its last line" in refusal(target, part)
    run_import(target, file)
    before = read_tables(target)["series_days"]
    assert select_column(target, "SELECT count(*) FROM series_days") == [days]
    other.write_text(re.sub('"database":"[0-9a-f]+"', f'"database":"{"0" * 64}"', file.read_text()))
    skipped = f"skipped {SKIPPED_DAYS}: {days}"
    assert skipped in run_import(target, other)
    assert read_tables(target)["series_days"] == before
    execute(target, "UPDATE applications SET days_source = NULL")  # the days are its own
    execute(target, "DELETE FROM series_days WHERE at > (SELECT min(at) FROM series_days)")
    assert skipped in run_import(target, file)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_any_fleet_is_moved(source: tuple[Fleet, BackgroundJobs], target: str) -> None:
    """The same for generated fleets, within one process."""
    first, background = source

    @LARGE_EXAMPLES
    @given(scenario=scenarios)
    def check_scenario(scenario: Scenario) -> None:
        empty_tables(first.database)
        empty_tables(target)
        fleet = Fleet(first.server, first.database, datetime.now(UTC), background.run)
        run_scenario(scenario, fleet, background.run)
        background.run()
        exported = background.runner.run(read_export(background.database))
        jobs.runner.run(store_export(jobs.database, exported))
        background.run()
        jobs.run()
        assert read_tables(target) == read_tables(fleet.database)
        assert jobs.differences() == {}

    with run_background_jobs(target) as jobs:
        check_scenario()


async def read_export(source: Database) -> bytes:
    return b"".join([lines async for lines in FullExport(source, Settings.load({})).read_lines()])


async def store_export(target: Database, exported: bytes) -> None:
    limits, file = Settings.load({}), BytesIO(exported)
    full_import = FullImport(HistoryImporter(target, limits, keeps_revoked=True), limits, target.clock.now())
    while await full_import.store_page(file, "the export"):
        pass


# Lines of a file, the first one the header of a whole export, and what the refusal says.
DAMAGED = {
    "line 1: no export of `shm export --all` begins like this": ["{}"],
    "line 2: not a JSON object in UTF-8": ["HEADER", '{"type":"alias","slug":'],
    "line 2: Invalid value 'token' - at `$.type`": ["HEADER", '{"type":"token"}'],
    "line 2: the header has to be the first line, once": ["HEADER", "HEADER"],
    "line 2: the file ends before its last line": ["HEADER"],
    "line 3: 7 lines were written before this one": ["HEADER", "ALIAS", '{"type":"end","records":7}'],
    "line 4: more lines follow the last one": ["HEADER", "ALIAS", '{"type":"end","records":2}', "ALIAS"],
    "line 1: shm-export 99 needs a newer release of SHM": [
        '{"type":"header","format":"shm-export","version":99,"created_at":"2026-01-01T00:00:00Z","instances":0}'
    ],
}


@pytest.mark.parametrize("is_each", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_damaged_file_is_refused_with_the_number_of_its_line(database: str, tmp_path: Path, *, is_each: bool) -> None:
    file = tmp_path / "damaged.jsonl"
    header = json.dumps(export(database, file)[0])
    words = {"HEADER": header, "ALIAS": '{"type":"alias","slug":"till","app_slug":"kiosk"}'}
    for expected, lines in list(DAMAGED.items())[:: 1 if is_each else 3]:
        file.write_text("".join(f"{words.get(line, line)}\n" for line in lines))
        assert f"{file}, {expected}" in refusal(database, file), expected
    assert "cannot be read" in refusal(database, tmp_path / "missing.jsonl")
    done = run_shm("export", "--all", "--format", "jsonl", SHM_DB_DSN=database)
    assert (done.returncode, "cannot be combined with --format" in done.stderr) == (1, True)


def test_records_that_no_install_could_have_sent_are_skipped(
    server: ServerProcess, database: str, target: str, tmp_path: Path
) -> None:
    file, good = tmp_path / "hostile.jsonl", Install(server.url).enroll({"sent": 1})
    header, application, instance, sent, _ = export(database, file)
    future = (datetime.now(UTC) + timedelta(days=9)).isoformat()
    other = Install("").instance_id
    pending = Install("").instance_id
    hostile = [
        {**instance, "instance_id": other, "app_name": "x" * 9999},
        {**instance, "instance_id": Install("").instance_id, "public_key": "01" + 31 * "00"},  # of small order
        {**instance, "instance_id": pending, "status": "pending"},
        {**sent, "instance_id": pending},
        {**sent, "instance_id": other},
        {**sent, "snapshot_at": future},
        {**sent, "snapshot_at": "0001-01-01T00:00:00+14:00"},
        {**sent, "metrics": {"sent": 1, "nested": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}}}},
        {**sent, "metrics": {"nul\x00": 1}},
    ]
    day = {"type": "day", "app_slug": "ledger", "metric_type": "number", "key": "sent", "value": "", "total": 1}
    day |= {"instances": 1, "at": "2026-01-02T00:00:00Z"}
    history = {"type": "history", "database": "0" * 64, "raw_since": "2026-01-03T00:00:00Z"}
    history["frozen_until"] = "2026-01-03T05:00:00Z"
    days = [
        day,
        history,
        day,
        {**day, "at": "2026-01-02T01:00:00Z"},
        {**day, "at": "2026-01-03T00:00:00Z"},
        {**day, "at": "0001-01-01T00:00:00+14:00"},
        {**day, "app_slug": "unknown"},
    ]
    odd = {
        **instance,
        "last_seen_at": future,
        "erased_at": "0001-01-01T00:00:00+14:00",
        "hints": {"sent": {"label": 1}},
    }
    ugly = {**application, "github_url": "javascript:alert(1)", "logo_url": "https://x/ onerror=1"}
    lines = [header, ugly, *days, odd, *hostile, sent]
    lines.append({"type": "end", "records": len(lines)})
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    summary, *skipped = run_import(target, file)
    assert summary == "imported 1 application, 2 installs and 1 snapshot"
    assert skipped == [
        "imported 1 daily value of charts from before the oldest snapshot",
        "skipped daily values of applications that already have a history on this server, or do not exist on it: 1",
        "skipped daily values that are of no midnight before the end of the history: 3",
        "skipped daily values without a history before them: 1",
        "skipped installs with an invalid key or text: 2",
        "skipped snapshots of installs that are pending on this server: 1",
        "skipped snapshots of installs that are skipped or not in the file before them: 1",
        "skipped snapshots of the future or of no time: 1",
        "skipped snapshots older than SHM_RETENTION: 1",
        "skipped snapshots that are refused (nul_character): 1",
        "skipped snapshots that are refused (too_deep): 1",
    ]
    assert select_column(
        target, "SELECT instance_id FROM instances WHERE last_seen_at <= now() AND status = 'active'"
    ) == [good.instance_id]
    assert select_column(target, "SELECT coalesce(github_url, logo_url, 'none') FROM applications") == ["none"]


INSTANCE: dict[str, Any] = {
    "type": "instance",
    "status": "active",
    "app_slug": "ledger",
    "app_name": "Ledger",
    "app_version": "1.0",
    "environment": "production",
    "deployment_mode": "docker",
    "os_arch": "linux/amd64",
    "needs_approval": False,
    "absences": [],
    "versions": [],
    **dict.fromkeys(("registered_at", "first_seen_at", "last_seen_at"), "2026-01-01T00:00:00Z"),
    **dict.fromkeys(("revoked_at", "erased_at", "previous_app_slug", "hints")),
}


def test_installs_without_snapshots_are_not_collected(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of a page are remembered, for the snapshots that follow it."""
    monkeypatch.setattr("shm.ingest.full_import.PAGE_SIZE", 2)
    limits, now, installs = Settings.load({}), datetime.now(UTC), [Install("") for _ in range(5)]
    records: list[object] = [Header(FORMAT, VERSION, now, len(installs))]
    for install in installs:
        record = {**INSTANCE, "instance_id": install.instance_id, "public_key": install.public_key}
        records.append(msgspec.convert(record, InstanceRecord))
    file = BytesIO(b"".join(map(encode_record, [*records, End(len(records))])))
    with run_background_jobs(database) as jobs:
        importer = HistoryImporter(jobs.database, limits, keeps_revoked=True)
        full_import = FullImport(importer, limits, now)
        remembered = []
        while jobs.runner.run(full_import.store_page(file, "the export")):
            remembered.append([bool(importer.find_key(install.instance_id)) for install in installs])
    assert remembered == [[True, True, False, False, False], [False, False, True, True, False]]
    assert importer.result.instances == len(installs)
