"""Hosts with an event loop: it runs their async providers, and no method blocks it."""

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

import shm_sdk
from shm_sdk.testing import ShmServer


def make_telemetry(**settings: Any) -> shm_sdk.Client:
    return shm_sdk.Client(app_name="Ledger", app_version="1.4.2", collect_system_metrics=False, strict=True, **settings)


def test_an_async_provider_runs_on_the_hosts_loop(shm_server: ShmServer) -> None:
    async def host() -> None:
        telemetry = make_telemetry()
        lock = asyncio.Lock()  # belongs to this loop

        @telemetry.provider
        async def metrics() -> dict[str, object]:
            async with lock:
                await asyncio.sleep(0.01)
                return {"is_main": threading.current_thread() is threading.main_thread()}

        telemetry.start(first_report_after=0)
        await asyncio.to_thread(shm_server.assert_reported, is_main=True)
        await telemetry.astop()

    asyncio.run(host())


def test_a_client_from_before_the_loop_uses_the_loop_of_start(shm_server: ShmServer) -> None:
    telemetry = make_telemetry()

    class Metrics:
        async def collect(self) -> dict[str, object]:
            return {"task": asyncio.current_task() is not None}

    telemetry.provider(Metrics().collect)

    async def host() -> None:
        telemetry.start()
        await telemetry.astop(flush=True, timeout=10)

    asyncio.run(host())
    shm_server.assert_reported(task=True)


@pytest.mark.parametrize("method", ["stop", "astop"])
def test_stopping_does_not_block_the_loop(shm_server: ShmServer, method: str) -> None:
    gate = threading.Event()
    telemetry = make_telemetry()

    @telemetry.provider
    def waits() -> dict[str, object]:
        return {"opened": gate.wait(30)}

    async def host() -> None:
        telemetry.start()
        started_at = time.monotonic()
        if method == "stop":
            telemetry.stop(flush=True, timeout=10)
            assert time.monotonic() - started_at < 5  # has not waited for the provider
            gate.set()
        else:
            asyncio.get_running_loop().call_later(0.05, gate.set)  # runs only if the loop goes on
            await telemetry.astop(flush=True, timeout=10)

    asyncio.run(host())
    shm_server.assert_reported(opened=True)


def test_without_a_loop_one_warning_says_so(shm_server: ShmServer, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = make_telemetry()

    @telemetry.provider
    async def metrics() -> dict[str, object]:
        return {"never": 1}

    telemetry.provider(lambda: {"orders": 8})
    with caplog.at_level(logging.WARNING, "shm_sdk"):
        assert [telemetry.report_now().sent for _ in range(2)] == [True] * 2
    telemetry.stop()
    assert shm_server.metrics == {"orders": 8}
    assert caplog.text.count("async def") == 1


def test_a_loop_that_waits_for_its_own_report_goes_on(shm_server: ShmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`report_now` on the loop leaves an async provider out when its time is over, and returns."""
    monkeypatch.setattr("shm_sdk.providers.PROVIDER_TIMEOUT_S", 1.0)

    async def host() -> None:
        telemetry = make_telemetry()

        @telemetry.provider
        async def metrics() -> dict[str, object]:
            return {"never": 1}

        telemetry.provider(lambda: {"orders": 8})
        assert telemetry.report_now(timeout=60).sent
        telemetry.stop()

    asyncio.run(host())
    assert shm_server.metrics == {"orders": 8}


@pytest.mark.parametrize("executor", ["busy", "shut down"])
def test_astop_does_not_depend_on_the_executor_of_the_loop(shm_server: ShmServer, executor: str) -> None:
    telemetry, gate = make_telemetry(), threading.Event()
    telemetry.provider(lambda: {"orders": 8})

    async def host() -> None:
        telemetry.start()
        waits = [asyncio.to_thread(gate.wait) for _ in range(40)] if executor == "busy" else []
        tasks = [asyncio.ensure_future(each) for each in waits]
        await asyncio.sleep(0)
        if executor == "shut down":
            await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.wait_for(telemetry.astop(flush=True, timeout=20), 30)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(host())
    shm_server.assert_reported(orders=8)
