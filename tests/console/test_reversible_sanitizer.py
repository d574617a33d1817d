"""Keys and values with characters that the console removes: requests have them as the server does."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from shm_tui.model.place import Place, parse_place
from shm_tui.text.reversible_sanitizer import MAX_RAW_TEXTS, ReversibleSanitizer
from tests.support.console import open_console
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

KEY, SHOWN = "sent\x1b[31m\u202e", "sent�[31m�"


@pytest.fixture(scope="module")
def ledger(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two installs whose keys and values have characters that the console removes."""
    with module_server(postgres, tmp_path_factory.mktemp("sanitizer")) as (server, _):
        for number in (1, 2):
            environment = f"prod\u202e{number}"
            metrics = {KEY: number, "plan": f"pro\u200b{number}", "mail": {KEY: 10 * number}}
            Install(server.url, environment=environment).enroll(metrics)
        yield server


async def test_a_metric_is_opened_whatever_its_key_has(ledger: ServerProcess) -> None:
    async with open_console(ledger, "ledger") as console:
        await console.wait_until(lambda: len(console.rows()) == 2)
        for key, value in ((SHOWN, "3 now"), (f"mail.{SHOWN}", "30 now")):
            console.app.go(parse_place(f"metric/{quote(key, safe='')}", Place("ledger")))
            await console.wait_for_text(value, "Over 2 now", "1.4.2")


async def test_filters_orders_and_breakdowns_find_what_is_shown(ledger: ServerProcess) -> None:
    async with open_console(ledger, "ledger") as console:
        await console.wait_until(lambda: len(console.rows()) == 2)
        client = console.app.session.client
        for condition in (
            f"metrics.{SHOWN}>1",
            f'metrics."mail.{SHOWN}"=20',
            "environment=prod�2",
            "metrics.plan=pro�2",
        ):
            assert await client.count_instances("ledger", [condition]) == 1, condition
        page = await client.read_page("ledger", [], (f"metrics.{SHOWN}", "desc"), 10)
        assert [instance.metrics[SHOWN] for instance in page.instances] == [2, 1]
        breakdown = await client.breakdown("ledger", "plan", SHOWN)
        assert sorted((group.value, group.metric) for group in breakdown.values) == [("pro�1", 1), ("pro�2", 2)]


async def test_no_text_of_an_install_directs_a_change_elsewhere(ledger: ServerProcess) -> None:
    """A filter that finds an install by what is shown decides on nothing: another install may have that very text."""
    async with open_console(ledger, "ledger") as console:
        await console.wait_until(lambda: len(console.rows()) == 2)
        client = console.app.session.client
        assert await client.count_instances("ledger", ["environment=prod�2"]) == 1
        preview = await client.decide_many("revoke", "ledger", conditions=["environment=prod�2"], is_preview=True)
        assert preview.instances == 0


def test_a_text_that_needs_no_sanitizing_remains_itself() -> None:
    """An install cannot take a key from others by another one that looks the same."""
    sanitizer = ReversibleSanitizer()
    assert sanitizer(["a\tb", "c\u202e"]) == ["a b", "c�"]
    assert (sanitizer.restore("a b"), sanitizer.restore("c�")) == ("a\tb", "c\u202e")
    sanitizer(["a b", "a\tb"])
    assert sanitizer.restore("a b") == "a b"
    assert sanitizer("4\u200d") == sanitizer.restore("4") == "4"
    sanitizer([f"{number}\x1b" for number in range(MAX_RAW_TEXTS)])
    assert sanitizer.restore("c�") == "c�", "the oldest are forgotten"
