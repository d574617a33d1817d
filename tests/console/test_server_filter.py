"""A filter that the server evaluates is exact over the whole fleet, however few rows the console holds."""

import asyncio
import secrets

from shm_client import Client
from shm_tui.model.filter import parse_filter
from shm_tui.model.row import Row
from shm_tui.model.state import Clock
from tests.support import plain_http
from tests.support.console import DrivenConsole, open_console
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

MAX_ROWS = 5


def set_status(server: ServerProcess, install: Install, action: str) -> None:
    """Approves or revokes an install."""
    url = f"{server.url}/api/v1/admin/instances/{install.instance_id}/{action}"
    plain_http.post(url, headers=server.headers).raise_for_status()


async def wait_for_matches(console: DrivenConsole, *installs: Install) -> None:
    """Waits until exactly these installs match."""
    expected = {install.instance_id for install in installs}
    await console.wait_until(lambda: set(console.app.table.store.visible_ids) == expected, f"{len(expected)} matches")


async def test_the_filter_finds_instances_beyond_the_newest(server: ServerProcess) -> None:
    pending = [Install(server.url) for _ in range(3)]  # never seen, so the oldest of all
    for install in pending:
        install.register()
    revoked, old = (Install(server.url, app_version=version).enroll({"sent": 1}) for version in ("1.0", "0.9"))
    set_status(server, revoked, "revoke")
    newest = [Install(server.url).enroll({"sent": 1}) for _ in range(12)]
    async with open_console(server, "ledger", max_rows=MAX_ROWS) as console:
        await wait_for_matches(console, *pending, revoked, old, *newest)  # the server sorts all of them
        await console.pilot.press("slash", *"status:pending")
        await wait_for_matches(console, *pending)
        await console.wait_for_text("3 of 17")
        await asyncio.to_thread(pending[0].activate)
        await wait_for_matches(console, *pending[1:])
        await console.wait_for_text("2 of 17")
        for text, install in (("status:revoked", revoked), ("version=0.9 sent:1", old)):
            await console.pilot.press("ctrl+u", *text)
            await wait_for_matches(console, install)
            await console.wait_for_text("1 of 17")
        await console.pilot.press("ctrl+u", *"sent>0")
        await console.wait_for_text("14 of 17")
        await console.pilot.press("ctrl+u", *"linux")
        await console.wait_for_text("of the newest 5")


async def test_the_server_counts_what_a_filter_selects(shared_server: ServerProcess) -> None:
    app = f"count{secrets.token_hex(4)}"
    installs = [Install(shared_server.url, app_name=app, app_version=f"1.{number}") for number in range(4)]
    for install in installs:
        install.enroll({})
    Install(shared_server.url, app_name=app).register()
    counts = {
        query: shared_server.get(f"instances/count?app={app}&{query}").json()
        for query in ("status=pending", "version=v1.2.0", "environment=production", "q=1.3")
    }
    assert counts == {
        "status=pending": {"instances": 1},
        "version=v1.2.0": {"instances": 1},
        "environment=production": {"instances": 5},
        "q=1.3": {"instances": 1},
    }
    assert shared_server.get(f"instances/count?app={app}").json() == {"instances": 5}


def test_a_filter_is_whole_if_the_server_evaluates_every_term() -> None:
    ranks = {"1.0": "x"}
    for text, conditions, is_whole in (
        ("status:pending", ["state=pending"], True),
        ("state=rev -status:active", ["state=revoked", "-state=active"], True),
        ("status:pending version=1.0", ["state=pending", "version=1.0"], True),
        ("status:pending ledger", ["state=pending"], False),
        ('"status"=pending', ["metrics.status=pending"], True),
        ('version:1.0 "a=b">3', ["version:1.0", 'metrics."a=b">3'], True),
        ("sent>=1.5k seen<2h", ["metrics.sent>=1500.0", "seen<2h"], True),
        ("seen>0s", [], False),
        ("sent:12 sent=1k plan:pro", ["metrics.plan:pro"], False),
        (" ".join(f"sent>{number}" for number in range(21)), [f"metrics.sent>{number}" for number in range(20)], False),
    ):
        server_filter = parse_filter(text, (), ranks).server_filter
        assert (list(server_filter.conditions), server_filter.is_whole) == (conditions, is_whole), text


FILTERS = [
    *("status:active", "state=counted", "-state:s", "status!=revoked", "status:pending", "status:unc"),
    *("env:PROD", "env=ci", "-env!=CI", 'app:"é b"', "app=café", "os:linux -mode:docker", "id:a"),
    *("version:1", "version:v1.4", "version>=1.4", "version<1.10", "version!=2.0-rc1", "version=V1.4.0"),
    *("seen<1h", "seen>=2d", "first<30d", "-first>1h"),
    *(
        "v>0",
        "v>=1.5",
        "-v<1k",
        "v=5",
        "v!=5",
        "v=yes",
        "v=true",
        "v!=no",
        "v=PRO",
        "v:pro",
        "v!=pro",
        '-v:"o p"',
        "v:ye",
    ),
    *('"mail.sent">1', "mail_sent<=2", '"a=b"=x', '-"a=b"!=x', "nobody=x", "-nobody>1", "v:xxx"),
]
VALUES = [0, 5, -3, 1.5, 2500, True, False, "Pro", "no pro", "5", "x" * 70, None, [1, 2], {"deep": 1}]
VERSIONS = ["1.4", "v1.4.0", "1.10", "2.0-rc1", "main"]


async def test_the_server_and_the_console_select_the_same(shared_server: ServerProcess) -> None:
    app = f"Café {secrets.token_hex(4)}"
    for number, value in enumerate(VALUES):
        install = Install(
            shared_server.url,
            app_name=app,
            app_version=VERSIONS[number % len(VERSIONS)],
            environment=("production", "CI")[number % 2],
            deployment_mode=("docker", "")[number % 3 > 0],
        )
        install.enroll({"v": value, "mail": {"sent": number % 4}, "a=b": "x" if number % 2 else "y"})
        if number % 5 == 4:
            set_status(shared_server, install, "revoke")
    Install(shared_server.url, app_name=app).register()
    async with Client(shared_server.url, shared_server.admin_token) as client:
        page = await client.instances(app, 100)
        rows = [Row(instance) for instance in page.instances]
        assert len(rows) == len(VALUES) + 1
        versions = ("1.4", "1.10", "2.0-rc1", "V1.4.0")
        ranks = {version: await client.version_rank(version) for version in versions}
        keys = {key for row in rows for key in row.metrics}
        clock = Clock(client.server_time(), 30 * 86400)
        for text in FILTERS:
            parsed = parse_filter(text, keys, ranks)
            assert parsed.server_filter.is_whole, text
            expected = {row.instance.instance_id for row in rows if parsed.matches(row, clock)}
            conditions = parsed.server_filter.conditions
            matches = await client.matching(app, conditions, 100)
            assert {instance.instance_id for instance in matches} == expected, text
            assert await client.count_instances(app, conditions) == len(expected), text
