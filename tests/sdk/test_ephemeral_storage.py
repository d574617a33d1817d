"""Which directories end with their container, and what that means for an identity in one."""

import os
import time
from pathlib import Path

import pytest

from shm_sdk import ephemeral_storage, identity
from shm_sdk.identity import load_or_create

CONTAINER = """\
100 90 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b
101 100 0:51 / /proc rw - proc proc rw
102 100 0:52 / /tmp rw - tmpfs tmpfs rw
103 100 254:1 /volumes/ledger /var/lib/ledger\\040data rw - ext4 /dev/vda1 rw
104 103 0:53 / /var/lib/ledger\\040data/cache rw shared:7 - tmpfs tmpfs rw
"""
MACHINE = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n31 27 0:99 / /srv rw - overlay overlay rw\n"


@pytest.mark.parametrize(
    ("mounts", "directory", "is_ephemeral"),
    [
        (CONTAINER, "/root/.local/share", True),
        (CONTAINER, "/tmp/data", True),  # noqa: S108
        (CONTAINER, "/var/lib/ledger data/telemetry", False),
        (CONTAINER, "/var/lib/ledger data/cache/telemetry", True),
        (CONTAINER, "/var/lib/ledger database", True),
        (MACHINE, "/root/.local/share", False),
        (MACHINE, "/srv/data", False),
        (MACHINE + "40 27 0:98 / /root rw - tmpfs tmpfs rw\n", "/root", True),
        ("", "/root", False),
        ("garbage - \n - \n", "/root", False),
    ],
)
def test_what_ends_with_its_container(tmp_path: Path, mounts: str, directory: str, is_ephemeral: bool) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(mounts)
    assert ephemeral_storage.is_ephemeral(Path(directory), file) is is_ephemeral


def test_a_system_without_mount_information_has_lasting_directories(tmp_path: Path) -> None:
    assert ephemeral_storage.is_ephemeral(tmp_path, tmp_path / "missing") is False


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="no file system in memory")  # noqa: S108
def test_an_identity_in_memory_is_ephemeral_for_a_day() -> None:
    directory = Path(f"/dev/shm/shm-sdk-test-{os.getpid()}")  # noqa: S108
    path = directory / "metrics_identity.json"
    try:
        young = load_or_create(directory, "Ledger")
        assert "ends with its container" in young.ephemeral_reason
        os.utime(path, (0, time.time() - identity.MAX_EPHEMERAL_AGE_S - 60))
        old = load_or_create(directory, "Ledger")
        assert (old.instance_id, old.is_ephemeral) == (young.instance_id, False)
    finally:
        path.unlink(missing_ok=True)
        directory.rmdir()
