"""Disclosures are complete, and many at once leave the database to others."""

from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest

from tests.support.clusters import wait_for
from tests.support.databases import execute, select_column, waiting_statements
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

pytestmark = pytest.mark.cluster

DISCLOSURES = 12  # twice the connections of the pool


def waiting_disclosures(database: str) -> list[str]:
    """The waiting statements that read an install's snapshots; background jobs wait for the table too."""
    return [each for each in waiting_statements(database) if "snapshot_at > '-infinity'" in each]


def test_disclosures_at_once_occupy_one_connection_of_the_pool(server: ServerProcess, database: str) -> None:
    """Their snapshots cannot be read for a while. Other answers do not wait for them."""
    installs = [Install(server.url).enroll({"n": number}) for number in range(DISCLOSURES)]
    with ThreadPoolExecutor(DISCLOSURES) as threads:
        holder = psycopg2.connect(database)
        try:
            holder.cursor().execute("LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")
            disclosing = [threads.submit(act, install, "disclose") for install in installs]
            recorded = "SELECT count(*) FROM signed_actions"
            wait_for(lambda: select_column(database, recorded) == [DISCLOSURES], "all disclosures")
            wait_for(lambda: bool(waiting_disclosures(database)), "a disclosure that reads snapshots")
            assert server.get("stats").json()["total_instances"] == DISCLOSURES
            assert len(waiting_disclosures(database)) == 1
        finally:
            holder.close()
        disclosed = [each.result().json() for each in disclosing]
    assert [each["snapshots"][0]["metrics"]["n"] for each in disclosed] == [*range(DISCLOSURES)]


def test_the_newest_snapshot_is_disclosed_after_its_retention(server: ServerProcess, database: str) -> None:
    """The instance keeps it when the raw one is dropped."""
    install = Install(server.url).enroll({"mail": {"sent": 3}})
    execute(database, "DELETE FROM snapshots")
    disclosed = act(install, "disclose").json()
    assert (disclosed["snapshots"], disclosed["instance"]["metrics"]) == ([], {"mail": {"sent": 3}})
