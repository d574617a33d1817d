"""The rows of the console have the order of the server's lists, whoever sorts them."""

import itertools
import secrets
from collections.abc import Iterator

from shm_client import Client
from shm_tui.model.columns import FIXED_COLUMNS, STATE, metric_column
from shm_tui.model.place_sort import column_sorting
from shm_tui.model.row_store import RowStore
from shm_tui.model.state import Clock
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

VALUES = [
    0,
    5,
    5,
    -3,
    1.5,
    2500,
    True,
    True,
    False,
    "b",
    "B",
    "a",
    "a",
    "é",
    "",
    "x" * 64,
    "x" * 65,
    None,
    None,
    [1, 2],
]
VERSIONS = ["1.4", "v1.4.0", "1.10", "2.0-rc1", "main", "1.4"]
COLUMNS = [
    *(column for column in FIXED_COLUMNS if column is not STATE),  # which only the console sorts by
    *(metric_column(key, key, True) for key in ("value", "mail.sent", "unknown")),
]


def enroll_all(server: ServerProcess, app: str) -> Iterator[Install]:
    """Installs with every value, two of them alike in everything, one without a snapshot."""
    for number, value in enumerate(VALUES):
        install = Install(
            server.url,
            app_name=app,
            app_version=VERSIONS[number % len(VERSIONS)],
            environment=("production", "CI", "")[number % 3],
            deployment_mode=("docker", "")[number % 2],
        )
        yield install.enroll({"value": value, "mail": {"sent": number % 4}})
    pending = Install(server.url, app_name=app)
    pending.register()
    yield pending


async def test_the_console_sorts_as_the_server_does(shared_server: ServerProcess) -> None:
    app = f"sorted{secrets.token_hex(4)}"
    count = len(list(enroll_all(shared_server, app)))
    async with Client(shared_server.url, shared_server.admin_token) as client:
        instances = (await client.instances(app, 100)).instances
        assert len(instances) == count
        for column, is_descending in itertools.product(COLUMNS, (False, True)):
            store = RowStore()
            store.sort_column, store.is_descending = column, is_descending
            for instance in instances:
                store.put(instance)
            store.flush(Clock(client.server_time(), 30 * 86400))
            sorting = column_sorting(column, is_descending)
            assert sorting is not None
            page = await client.read_page(app, [], sorting, 100)
            expected = [instance.instance_id for instance in page.instances]
            assert store.visible_ids == expected, (column.id, is_descending)
