"""Whatever has become of its files, the SDK raises nothing into its host, ends every wait, and says it once."""

import json
import logging
import os
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm_sdk import Client, Result
from shm_sdk.counters import COUNT, FILE_BYTES, RECORD, RECORD_BYTES
from shm_sdk.state import State
from shm_sdk.testing import frozen_clock
from tests.support.parameters import long_rows_after
from tests.support.scripted_server import ScriptedServer, reply, run_scripted_server

TIMEOUT_S = 60.0  # of one report, which takes milliseconds
IDENTITY = "metrics_identity.json"
CLAIM = f".{IDENTITY}.app"
CHOICE = "ledger_telemetry_choice.json"
SHARED = "ledger_telemetry"
STATE = f"{SHARED}/state.json"
SPOOLED = f"{SHARED}/spool/0001700000000000-1"
COUNTED = f"{SHARED}/counters/999999-ended"
FILES = (IDENTITY, CLAIM, CHOICE, STATE, f"{SHARED}/sender.lock", f"{SHARED}/report.lock", SPOOLED, COUNTED)
FOLDERS = (SHARED, f"{SHARED}/spool", f"{SHARED}/counters", ".")

COUNTS = RECORD.pack(5.0, 0.0, COUNT, 7) + b"exports".ljust(RECORD_BYTES - RECORD.size, b"\0")


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grow(path: Path) -> None:
    os.truncate(path, 2**40)  # a file with a hole, which takes no space


def loop(path: Path) -> None:
    path.symlink_to(path.name)


REPLACEMENTS: dict[str, Callable[[Path], object]] = {  # of a file or a folder
    "a directory": Path.mkdir,
    "a fifo": os.mkfifo,
    "a loop of symbolic links": loop,
    "a file that cannot be read": lambda path: path.symlink_to("/proc/self/mem"),
    "a link to nothing": lambda path: path.symlink_to("missing"),
    "an empty file": write(b""),
}
DAMAGES: dict[str, Callable[[Path], object]] = {  # of a file
    "truncated": truncate,
    "huge": grow,
    "not UTF-8": write(b"\xff\xfe{\x80}" * 20),
    "a number of 5000 digits": write(b'{"instance_id":' + b"9" * 5000 + b"}"),
    "deeply nested": write(b'{"a":' * 100_000),
    "an array": write(b"[1, 2]"),
    "an empty object": write(b"{}"),
    "a signature without a snapshot": write(b"00\n{}"),
    "zeros": write(bytes(FILE_BYTES)),
    "ones": write(b"\xff" * FILE_BYTES),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with each of the SDK's files: of an install with a choice, a count and a spooled snapshot."""
    directory = tmp_path_factory.mktemp("data")
    with run_scripted_server() as scripted_server:
        make_client(scripted_server, directory).report_now(TIMEOUT_S)
        document = json.loads((directory / IDENTITY).read_text())
        del document["app_name"]
        (directory / IDENTITY).write_text(json.dumps(document))
        for path in ("/v1/snapshot", "/v1/snapshots"):
            scripted_server.script(path, reply(503))
        telemetry = make_client(scripted_server, directory)
        telemetry.turn_on()
        telemetry.start(first_report_after=0)
        telemetry.stop(flush=True, timeout=TIMEOUT_S)
    folder = directory / SHARED
    next((folder / "spool").iterdir()).rename(directory / SPOOLED)
    (folder / "counters").mkdir(exist_ok=True)
    (directory / COUNTED).write_bytes(COUNTS.ljust(FILE_BYTES, b"\0"))
    assert all((directory / name).is_file() for name in FILES)
    return directory


@pytest.fixture
def copy(data_dir: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes copies of that directory."""
    return lambda: Path(shutil.copytree(data_dir, tmp_path / os.urandom(4).hex()))


def make_client(scripted_server: ScriptedServer, directory: Path) -> Client:
    return Client(scripted_server.url, "Ledger", "1", data_dir=directory, collect_system_metrics=False)


class Recorder(logging.Handler):
    """The messages of the SDK above INFO."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages[record.getMessage()] += 1


@contextmanager
def recorded() -> Iterator[Recorder]:
    recorder = Recorder()
    logging.getLogger("shm_sdk").addHandler(recorder)
    try:
        yield recorder
    finally:
        logging.getLogger("shm_sdk").removeHandler(recorder)


def use(scripted_server: ScriptedServer, directory: Path) -> tuple[set[Result], Counter[str]]:
    """Everything that a host and a user do. The results of its reports, and the messages."""
    with recorded() as recorder:
        telemetry = make_client(scripted_server, directory)
        telemetry.counter("exports").inc()
        telemetry.gauge("queue").set(3)
        telemetry.start(first_report_after=0)
        outcomes = [telemetry.report_now(TIMEOUT_S) for _ in range(3)]
        telemetry.stop(flush=True, timeout=TIMEOUT_S)
    telemetry.preview()
    telemetry.status()
    assert not [outcome for outcome in outcomes if "inside the SDK" in outcome.reason], outcomes
    assert max(recorder.messages.values(), default=1) == 1, recorder.messages
    return {outcome.result for outcome in outcomes}, recorder.messages


def test_an_undamaged_directory_needs_no_message(scripted_server: ScriptedServer, copy: Callable[[], Path]) -> None:
    results, messages = use(scripted_server, copy())
    assert (results, messages) == ({Result.SENT}, Counter())
    assert scripted_server.requests[-1].json["metrics"] == {"exports": 6, "queue": 3}


@pytest.mark.parametrize(
    ("place", "damage"),
    [
        *chain.from_iterable(long_rows_after(4, product([file], [*REPLACEMENTS, *DAMAGES])) for file in FILES),
        *chain.from_iterable(long_rows_after(4, product([folder], REPLACEMENTS)) for folder in FOLDERS),
    ],
)
def test_a_damaged_file_stops_neither_the_host_nor_its_reports(
    scripted_server: ScriptedServer, copy: Callable[[], Path], place: str, damage: str
) -> None:
    """A choice that cannot be read is a refusal. The others cost what they hold."""
    directory = copy()
    if damage in REPLACEMENTS:
        target = directory / place
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        REPLACEMENTS[damage](target)
    else:
        DAMAGES[damage](directory / place)
    results, messages = use(scripted_server, directory)
    is_refusal = any("counts as a refusal" in message for message in messages)
    assert results == {Result.OFF if is_refusal else Result.SENT}
    is_unreadable = (place, damage) == (".", "a loop of symbolic links")
    assert is_refusal == (is_unreadable or (place == CHOICE and damage not in ("a link to nothing", "an empty object")))


WEIRD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from(
        [10**400, -(10**400), 2**63, 2**62 - 1, 1e300, -1e300, float("nan"), float("inf"), "\ud800", "x", ""]
    ),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["exports", "\ud800", ""]), st.sampled_from([1, 10**400, [2, 10**400], {}, "x"])),
)


def documents(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects of which some members have values that the SDK does not write."""
    return st.dictionaries(st.sampled_from(names), WEIRD, max_size=4)


LENGTH = pytest.mark.parametrize(
    "length",
    [
        pytest.param(settings(max_examples=10, derandomize=True, deadline=None), id="short"),
        pytest.param(settings(max_examples=400, deadline=None), id="long", marks=pytest.mark.long),
    ],
)


@LENGTH
@pytest.mark.parametrize("name", [IDENTITY, CHOICE, STATE])
def test_any_member_of_a_json_file_may_have_any_value(
    scripted_server: ScriptedServer, copy: Callable[[], Path], name: str, length: Callable[..., Any]
) -> None:
    intact = copy()
    original = json.loads((intact / name).read_text())
    names = [*original, *vars(State())] if name == STATE else [*original]

    @length
    @given(documents(names))
    def check(changes: dict[str, Any]) -> None:
        directory = copy()
        (directory / name).write_text(json.dumps(original | changes))
        use(scripted_server, directory)
        shutil.rmtree(directory)

    check()


@LENGTH
def test_any_body_may_stand_in_the_spool(
    scripted_server: ScriptedServer, copy: Callable[[], Path], length: Callable[..., Any]
) -> None:
    """Against a server that takes no backlogs and refuses with 500 in plain text, as the original one does."""
    intact = copy()
    signature, _, body = (intact / SPOOLED).read_bytes().partition(b"\n")
    original = json.loads(body)

    @length
    @given(documents([*original]), st.sampled_from([signature, b"", b"\xff", b"00"]))
    def check(changes: dict[str, Any], damaged_signature: bytes) -> None:
        directory = copy()
        (directory / SPOOLED).write_bytes(damaged_signature + b"\n" + json.dumps(original | changes).encode())
        scripted_server.script("/v1/snapshots", *[reply(404)] * 9)
        scripted_server.script("/v1/snapshot", reply(500, b"invalid timestamp\n", Date="Sun, 06 Nov 1994 08:49:37 GMT"))
        use(scripted_server, directory)
        scripted_server.scripts.clear()
        shutil.rmtree(directory)

    check()


def test_a_damaged_snapshot_does_not_end_reporting(
    client: Callable[..., Client], scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is valid JSON of this install and lacks its time, and the original server answers 500 to it."""
    telemetry = client()
    scripted_server.script("/v1/snapshot", reply(503))
    assert telemetry.report_now().result is Result.FAILED
    (spooled,) = Path(telemetry.status().identity_file or "").parent.glob("*/spool/*")
    signature, _, body = spooled.read_bytes().partition(b"\n")
    instance_id = json.loads(body)["instance_id"]
    spooled.write_bytes(signature + b"\n" + json.dumps({"instance_id": instance_id}).encode())
    scripted_server.script("/v1/snapshots", reply(404))
    scripted_server.script("/v1/snapshot", reply(500, b"invalid timestamp\n", Date="Sun, 06 Nov 1994 08:49:37 GMT"))
    assert telemetry.report_now().sent
    assert caplog.text.count("is dropped: its file is damaged") == 1


@LENGTH
def test_any_content_may_stand_in_a_counter_file(
    scripted_server: ScriptedServer, copy: Callable[[], Path], length: Callable[..., Any]
) -> None:
    number = st.sampled_from([0.0, -1.0, 1e308, float("nan"), float("inf"), 7.5])
    record = st.tuples(number, number, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=RECORD_BYTES))

    @length
    @given(st.lists(record, max_size=5))
    def check(records: list[tuple[float, float, int, int, bytes]]) -> None:
        directory = copy()
        content = bytearray(FILE_BYTES)
        for index, (value, changed_at, kind, key_length, key) in enumerate(records):
            packed = RECORD.pack(value, changed_at, kind, key_length) + key
            content[index * RECORD_BYTES : (index + 1) * RECORD_BYTES] = packed[:RECORD_BYTES].ljust(
                RECORD_BYTES, b"\0"
            )
        (directory / COUNTED).write_bytes(bytes(content))
        use(scripted_server, directory)
        stored = json.loads((directory / STATE).read_text())["counts"]
        assert all(struct.unpack("d", struct.pack("d", value))[0] == value for value in stored.values())
        shutil.rmtree(directory)

    check()


FULL_DISK = """
import logging, resource, signal, sys, shm_sdk
logging.basicConfig(format="%(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1", data_dir=sys.argv[2], collect_system_metrics=False)
shm_sdk.forking.load_reporting_modules()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # every write to a file fails
telemetry.counter("exports").inc()
telemetry.start(first_report_after=0)
print([telemetry.report_now(60).result.value for _ in range(2)])
telemetry.stop(flush=True, timeout=60)
print(telemetry.status().is_on, telemetry.preview().is_registered)
"""


@pytest.mark.parametrize("directory", ["missing", "file/missing"])
def test_an_install_reports_where_nothing_can_be_written(
    scripted_server: ScriptedServer, tmp_path: Path, directory: str
) -> None:
    """In the first case directories can be made; in the second there is not even one for temporary files."""
    (tmp_path / "file").touch()
    completed = subprocess.run(
        [sys.executable, "-c", FULL_DISK, scripted_server.url, str(tmp_path / directory)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert completed.stdout == "['sent', 'sent']\nTrue False\n"
    lines = completed.stderr.splitlines()
    assert len(set(lines)) == len(lines)
    assert [line for line in lines if "counts this install separately, as ephemeral" in line]
    assert scripted_server.requests[-1].json["metrics"] == {"exports": 1, "sys_ephemeral": True}


def test_a_state_that_cannot_be_stored_changes_no_interval(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / STATE).mkdir(parents=True)
    with frozen_clock() as clock:
        telemetry = make_client(scripted_server, tmp_path)
        telemetry.start(first_report_after=0)
        scripted_server.wait_for("/v1/snapshot")
        clock.advance(minutes=50)
        assert scripted_server.paths.count("/v1/snapshot") == 1
        clock.advance(minutes=40)
        scripted_server.wait_for("/v1/snapshot", times=2)
        telemetry.stop()
    assert [body["sequence"] for body in scripted_server.bodies("/v1/snapshot")] == [1, 2]


def test_an_application_may_have_a_long_name(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """The names of its files stay below the 255 characters of a file system."""
    telemetry = Client(scripted_server.url, "l" * 256, "1", data_dir=tmp_path, collect_system_metrics=False)
    telemetry.counter("exports").inc()
    assert telemetry.turn_on().is_done
    assert [telemetry.report_now(TIMEOUT_S).sent for _ in range(2)] == [True, True]
    assert telemetry.status().choice == "on"
    assert scripted_server.requests[-1].json["metrics"] == {"exports": 1}
