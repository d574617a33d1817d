"""The list of erased installs: one row for each, and of two erasures the later one counts after a restoration."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO

import msgspec
import pytest

from shm.core.errors import ConfigurationError
from shm.core.settings import Settings
from shm.ingest import erased_list
from shm.ingest.erased_list import ErasedInstall, ErasedList, erase_again, parse_list, read_list
from shm.ingest.erasure import Eraser
from shm.ingest.key_cache import PublicKeyCache
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.databases import execute, select_column
from tests.support.installs import Install
from tests.support.responses import problem
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

SETTINGS = Settings.load({})


@pytest.fixture
def background(database: str) -> Iterator[BackgroundJobs]:
    """Keeps servers from running their jobs, so it must be requested before them."""
    with run_background_jobs(database) as jobs:
        yield jobs


def read(background: BackgroundJobs, earlier: ErasedList | None = None) -> ErasedList:
    async def read_lines() -> bytes:
        return b"".join([lines async for lines in read_list(background.database, SETTINGS, earlier)])

    return parse_list(BytesIO(background.runner.run(read_lines())), "the list")


def erase(background: BackgroundJobs, erased: ErasedList) -> int:
    eraser = Eraser(background.database, PublicKeyCache(background.database, SETTINGS), SETTINGS)
    return background.runner.run(erase_again(background.database, eraser, erased))


def test_the_later_of_two_erasures_counts(background: BackgroundJobs, server: ServerProcess, database: str) -> None:
    """The backup knows the first one, the list the second one."""
    install, between = Install(server.url).enroll({"n": 1}), datetime.now(UTC) - timedelta(minutes=1)
    assert act(install, "erase").status_code == 200
    erased = read(background)
    execute(database, "UPDATE erased_identities SET erased_at = %s", between - timedelta(minutes=1))
    assert erase(background, erased) == 0
    assert problem(install.register_signed(between)) == (403, "signed_before_erasure")
    assert select_column(database, "SELECT erased_at FROM erased_identities") == [erased.installs[0].erased_at]
    assert install.register_signed().status_code == 201
    assert erase(background, erased) == 0  # it has registered again since
    assert select_column(database, "SELECT instance_id FROM instances") == [install.instance_id]


def test_an_install_that_is_erased_twice_is_listed_once(
    background: BackgroundJobs, server: ServerProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the later time, also where a page ends between its two hashes."""
    monkeypatch.setattr(erased_list, "PAGE_SIZE", 1)
    installs = [Install(server.url).enroll({"n": 1}) for _ in range(2)]
    for install in installs:
        assert act(install, "erase").status_code == 200
        assert install.register_signed().status_code == 201
    execute(database, "UPDATE erased_identities SET erased_at = erased_at - interval '1 day'")
    execute(database, "UPDATE instances SET erasing_since = now()")
    listed = read(background).installs
    assert len({each.id_hash for each in listed}) == len(listed) == len(installs)
    assert min(each.erased_at for each in listed) > datetime.now(UTC) - timedelta(hours=1)


def test_a_list_keeps_what_a_restored_database_lacks(
    background: BackgroundJobs, server: ServerProcess, database: str
) -> None:
    """While it could still be restored. The list of another database is not replaced."""
    install = Install(server.url).enroll({"n": 1})
    assert act(install, "erase").status_code == 200
    first = read(background)
    (erased,) = first.installs
    expired = ErasedInstall("0" * 64, "1" * 64, datetime.now(UTC) - SETTINGS.max_snapshot_age)
    first.installs.append(expired)
    assert read(background, first).installs == [erased]
    execute(database, "DELETE FROM erased_identities")
    assert read(background).installs == []
    assert read(background, first).installs == [erased]
    other = replace(first, header=msgspec.structs.replace(first.header, database="0" * 64))
    with pytest.raises(ConfigurationError, match="is the list of another database"):
        read(background, other)
