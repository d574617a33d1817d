"""The identity file: private, atomically written by one process, and never overwritten."""

import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nacl.signing import SigningKey, VerifyKey

from shm_sdk import Client, Result
from shm_sdk.identity import InvalidIdentityError, load_or_create
from tests.support.scripted_server import ScriptedServer

SEED = bytes(range(32))
PUBLIC = bytes(SigningKey(SEED).verify_key)
INSTANCE = "c77af682-9aa4-412e-904a-c307d3a8a9c2"
GO_FILE = {"instance_id": INSTANCE, "private_key": (SEED + PUBLIC).hex(), "public_key": PUBLIC.hex()}
NODE_FILE = {"instanceId": INSTANCE, "privateKey": (SEED + PUBLIC).hex(), "publicKey": PUBLIC.hex()}

RACING_PROGRAM = """
import sys, time
from pathlib import Path
from shm_sdk.identity import load_or_create
if {links!r} == "no links":
    import os
    def refuse(*_):  # as on FAT and many network shares
        raise PermissionError(1, "Operation not permitted")
    os.link = refuse
print("ready", flush=True)
sys.stdin.readline()
identity = load_or_create(Path({directory!r}), "ledger")
print(identity.instance_id, identity.public_key)
"""


def test_a_new_identity_is_private_and_persistent(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "data"
    first, second = load_or_create(directory, "ledger"), load_or_create(directory, "ledger")
    assert first == second
    assert [path.name for path in directory.iterdir()] == ["metrics_identity.json"]
    assert stat.S_IMODE((directory / "metrics_identity.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    VerifyKey(bytes.fromhex(first.public_key)).verify(b"body", bytes.fromhex(first.sign(b"body")))


def test_two_installs_have_different_identities(tmp_path: Path) -> None:
    one, other = load_or_create(tmp_path / "one", "ledger"), load_or_create(tmp_path / "other", "ledger")
    assert one.instance_id != other.instance_id
    assert one.public_key != other.public_key


def test_an_identity_does_not_show_its_key(tmp_path: Path) -> None:
    identity = load_or_create(tmp_path, "ledger")
    private = json.loads((tmp_path / "metrics_identity.json").read_text())["private_key"]
    for text in (repr(identity), str(identity), f"{identity}"):
        assert private[:64] not in text
        assert "seed" not in text


@pytest.mark.parametrize("file", [GO_FILE, NODE_FILE], ids=["go", "node"])
@pytest.mark.parametrize("name", ["metrics_identity.json", "cafe-ledger_shm_identity.json"])
def test_an_official_clients_identity_is_used(tmp_path: Path, file: dict[str, str], name: str) -> None:
    (tmp_path / name).write_text(json.dumps(file, indent=2))
    identity = load_or_create(tmp_path, "cafe-ledger")
    assert (identity.instance_id, identity.public_key) == (INSTANCE, PUBLIC.hex())
    assert identity.sign(b"body") == SigningKey(SEED).sign(b"body").signature.hex()
    assert {path.name for path in tmp_path.iterdir()} - {f".{name}.app"} == {name}
    assert json.loads((tmp_path / name).read_text()) == file


def test_the_sdks_file_precedes_an_official_clients(tmp_path: Path) -> None:
    ours = load_or_create(tmp_path, "ledger")
    (tmp_path / "ledger_shm_identity.json").write_text(json.dumps(GO_FILE))
    assert load_or_create(tmp_path, "ledger") == ours


@pytest.mark.parametrize("links", ["links", "no links"])
def test_processes_that_start_at_once_share_one_identity(tmp_path: Path, links: str) -> None:
    code = RACING_PROGRAM.format(links=links, directory=str(tmp_path / "data"))
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    identities = {process.communicate(timeout=60)[0] for process in processes}
    assert len(identities) == 1
    (identity,) = identities
    file = json.loads((tmp_path / "data" / "metrics_identity.json").read_text())
    assert identity.split() == [file["instance_id"], file["public_key"]]
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names - {".metrics_identity.json.lock"} == {"metrics_identity.json"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 300,
        b"{",
        b"[" * 5000,
        b"[]",
        b"null",
        b"{}",
        json.dumps(GO_FILE).encode()[:-20],
        json.dumps(GO_FILE | {"instance_id": "not a UUID"}).encode(),
        json.dumps(GO_FILE | {"instance_id": f"{{{INSTANCE}}}"}).encode(),
        json.dumps(GO_FILE | {"instance_id": 7}).encode(),
        json.dumps(GO_FILE | {"private_key": SEED.hex()}).encode(),
        json.dumps(GO_FILE | {"private_key": "zz" * 64}).encode(),
        json.dumps(GO_FILE | {"private_key": bytes(64).hex()}).encode(),
        json.dumps(GO_FILE | {"private_key": (bytes(32) + PUBLIC).hex()}).encode(),
        json.dumps(GO_FILE | {"public_key": bytes(32).hex()}).encode(),
        json.dumps(GO_FILE).encode() + b" " * 20_000,
    ],
)
@pytest.mark.parametrize("name", ["metrics_identity.json", "cafe-ledger_shm_identity.json"])
def test_a_corrupt_identity_is_never_overwritten(
    client: Callable[..., Client],
    scripted_server: ScriptedServer,
    tmp_path: Path,
    content: bytes,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "data" / name
    file.parent.mkdir()
    file.write_bytes(content)
    telemetry = client()
    with caplog.at_level(logging.DEBUG):
        assert [telemetry.report_now().result for _ in range(2)] == [Result.SENT] * 2
    assert file.read_bytes() == content
    assert [path for path in file.parent.iterdir() if path.is_file()] == [file]
    assert scripted_server.metrics == [{"sys_ephemeral": True}] * 2
    assert len({body["instance_id"] for body in scripted_server.bodies("/v1/snapshot")}) == 1
    assert len([record for record in caplog.records if record.levelno > logging.DEBUG]) == 1


def test_an_unreadable_identity_raises(tmp_path: Path) -> None:
    (tmp_path / "metrics_identity.json").mkdir()  # root can read every file, but not a directory
    with pytest.raises(InvalidIdentityError, match="cannot be read"):
        load_or_create(tmp_path, "ledger")


def test_an_install_that_cannot_be_stored_is_ephemeral(
    client: Callable[..., Client], scripted_server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    obstacle = tmp_path / "data"
    obstacle.write_text("a file instead of a directory")
    telemetry = client()
    telemetry.provider(lambda: {"orders": 8, "sys_ephemeral": False})
    with caplog.at_level(logging.DEBUG):
        assert [telemetry.report_now().result for _ in range(2)] == [Result.SENT] * 2
    assert len([record for record in caplog.records if record.levelno > logging.DEBUG]) == 1
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot", "/v1/snapshot"]
    obstacle.unlink()
    assert telemetry.report_now().sent
    temporary, _, lasting = scripted_server.bodies("/v1/snapshot")
    assert temporary["metrics"] == {"orders": 8, "sys_ephemeral": True}
    assert lasting["metrics"] == {"orders": 8, "sys_ephemeral": False}
    assert temporary["instance_id"] != lasting["instance_id"]
    assert json.loads((obstacle / "metrics_identity.json").read_text())["instance_id"] == lasting["instance_id"]


def test_each_application_in_a_directory_has_an_identity(tmp_path: Path) -> None:
    names = ["Ledger", "Café", "帳簿", "日記"]
    first = [load_or_create(tmp_path, name) for name in names]
    assert len({identity.instance_id for identity in first}) == len(names)
    assert [load_or_create(tmp_path, name) for name in reversed(names)] == first[::-1]
    assert load_or_create(tmp_path, "ledger") == first[0]  # the server has one application for both names
    assert first[0].path == tmp_path / "metrics_identity.json"
    assert first[1].path == tmp_path / "cafe" / "metrics_identity.json"


def test_another_applications_damage_changes_nothing(tmp_path: Path) -> None:
    load_or_create(tmp_path, "Ledger")
    ours = load_or_create(tmp_path, "Wiki")
    (tmp_path / "metrics_identity.json").write_text("{")
    assert load_or_create(tmp_path, "Wiki") == ours
    with pytest.raises(InvalidIdentityError, match="damaged"):
        load_or_create(tmp_path, "Ledger")


def test_a_file_without_a_name_belongs_to_its_first_reader(tmp_path: Path) -> None:
    (tmp_path / "metrics_identity.json").write_text(json.dumps(GO_FILE))
    assert load_or_create(tmp_path, "Ledger").instance_id == INSTANCE
    assert load_or_create(tmp_path, "Wiki").instance_id != INSTANCE
    assert load_or_create(tmp_path, "Ledger").instance_id == INSTANCE


@pytest.mark.parametrize("private_key", [SEED.hex(), (SEED + PUBLIC).hex().upper(), f'"{SEED.hex()}"'])
def test_the_environment_replaces_the_file(
    client: Callable[..., Client],
    scripted_server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    private_key: str,
) -> None:
    monkeypatch.setenv("SHM_INSTANCE_ID", INSTANCE)
    monkeypatch.setenv("SHM_PRIVATE_KEY", private_key)
    assert client().report_now().sent
    request = scripted_server.requests[-1]
    assert request.json["instance_id"] == INSTANCE
    assert request.json["metrics"] == {}
    assert request.is_signed_by(PUBLIC.hex())
    assert not list(tmp_path.rglob("*identity*"))


@pytest.mark.parametrize(
    "environment",
    [
        {"SHM_INSTANCE_ID": INSTANCE},
        {"SHM_PRIVATE_KEY": SEED.hex()},
        {"SHM_INSTANCE_ID": "7", "SHM_PRIVATE_KEY": SEED.hex()},
        {"SHM_INSTANCE_ID": INSTANCE, "SHM_PRIVATE_KEY": SEED.hex()[:-1]},
        {"SHM_INSTANCE_ID": INSTANCE, "SHM_PRIVATE_KEY": "zz" * 32},
    ],
    ids=str,
)
def test_half_an_identity_in_the_environment_is_a_mistake(
    client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert client().report_now().result is Result.OFF
    assert SEED.hex()[:-1] not in caplog.text
    assert caplog.text.count("SHM_") in (1, 2)


def test_a_damaged_key_in_the_environment_is_ephemeral(
    client: Callable[..., Client], scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHM_INSTANCE_ID", INSTANCE)
    monkeypatch.setenv("SHM_PRIVATE_KEY", (SEED + bytes(32)).hex())
    assert client().report_now().sent
    assert scripted_server.requests[-1].json["instance_id"] != INSTANCE
    assert scripted_server.requests[-1].json["metrics"] == {"sys_ephemeral": True}


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from shm_sdk.identity import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import nacl.signing, uuid\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"  # a write past 50 bytes fails, as on a full disk
        "try: load_or_create(Path(sys.argv[1]), 'ledger')\n"
        "except IdentityWriteError as error: print('unwritable')\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (completed.stdout, completed.stderr) == ("unwritable\n", "")
    assert list(tmp_path.iterdir()) == []
