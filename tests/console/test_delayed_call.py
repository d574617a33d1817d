"""Calls after a delay come also where the loop stalls for longer than the delay."""

import time

import pytest

from shm_tui.widgets.delayed_call import call_after
from tests.support.console import open_console
from tests.support.server_process import ServerProcess


@pytest.mark.parametrize("delay_s", [0.0, 1e-6, 0.05])
async def test_a_call_is_not_lost_in_a_stall(shared_server: ServerProcess, delay_s: float) -> None:
    async with open_console(shared_server) as console:
        calls: list[float] = []
        call_after(console.app.dashboard.footer, delay_s, lambda: calls.append(delay_s))
        time.sleep(0.1)  # noqa: ASYNC251 - the stall
        await console.wait_until(lambda: calls)
        assert calls == [delay_s]
