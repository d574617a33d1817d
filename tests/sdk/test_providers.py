"""The SDK handles providers that raise, return what cannot be read or sent, are async, or fork."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest

from shm_sdk import Client, Result
from tests.support.scripted_server import ScriptedServer, reply

MakeClient = Callable[..., Client]


def accept_everything(scripted_server: ScriptedServer) -> ScriptedServer:
    """Scripts the server so that it accepts one report."""
    for path, status in (("register", 201), ("activate", 200), ("snapshot", 202)):
        scripted_server.script(f"/v1/{path}", reply(status))
    return scripted_server


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, SystemExit, RecursionError])
def test_a_provider_that_raises_loses_only_its_metrics(
    client: MakeClient, scripted_server: ScriptedServer, error: type[BaseException]
) -> None:
    accept_everything(scripted_server)
    telemetry = client()

    @telemetry.provider
    def fails() -> dict[str, object]:
        raise error

    @telemetry.provider
    def works() -> dict[str, object]:
        return {"works": 1}

    assert telemetry.report_now().sent
    assert b'"works":1' in scripted_server.requests[-1].body.replace(b" ", b"")


def test_an_unprintable_key_is_dropped(client: MakeClient, scripted_server: ScriptedServer) -> None:
    class Nameless:
        def __str__(self) -> str:
            raise RuntimeError

    accept_everything(scripted_server)
    telemetry = client()
    telemetry.provider(lambda: {Nameless(): 1, "works": 1})  # type: ignore[type-var]
    assert telemetry.report_now().sent


def test_an_async_provider_logs_one_warning(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    accept_everything(scripted_server)
    telemetry = client()

    async def metrics() -> dict[str, object]:
        return {"never": 1}

    telemetry.provider(metrics)
    with caplog.at_level(logging.WARNING, "shm_sdk"):
        assert telemetry.report_now().sent
        assert telemetry.report_now().sent
    assert caplog.text.count("async def") == 1


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # Python warns of a fork with threads, which is what this tests
def test_a_child_forked_during_a_report_can_report(client: MakeClient, scripted_server: ScriptedServer) -> None:
    accept_everything(scripted_server)
    telemetry = client()
    is_inside, may_continue = threading.Event(), threading.Event()

    @telemetry.provider
    def waits() -> dict[str, object]:
        if threading.current_thread() is not threading.main_thread():
            is_inside.set()
            may_continue.wait(60)
        return {}

    parent = threading.Thread(target=telemetry.report_now)
    parent.start()
    assert is_inside.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if telemetry.report_now(timeout=10).result is Result.SENT else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    may_continue.set()
    parent.join()


class Unbound:
    """As a proxy of Flask outside its context."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("Working outside of application context.")

    def __str__(self) -> str:
        raise RuntimeError("Working outside of application context.")

    def __float__(self) -> float:
        raise RuntimeError("Working outside of application context.")


def test_an_object_that_raises_when_it_is_read_raises_nowhere(
    client: MakeClient, scripted_server: ScriptedServer
) -> None:
    unbound: Any = Unbound()
    for setting in ("enabled", "debug", "server_url", "data_dir", "report_interval"):
        refusing = client(**{setting: unbound})
        refusing.start()
        refusing.stop()
    telemetry = client()
    telemetry.provider(unbound)
    telemetry.provider(lambda: {"jobs": unbound, "done": 3})
    telemetry.counter("exports").inc(unbound)
    telemetry.gauge("queue").set(unbound)
    telemetry.describe("jobs", label=unbound)
    assert telemetry.report_now().sent
    assert scripted_server.requests[-1].json["metrics"] == {"done": 3}


class Unreadable(dict[object, object]):
    def items(self) -> Any:
        raise RuntimeError("it is gone")


@pytest.mark.parametrize(
    ("value", "warned"),
    [
        (10**400, "open is left out: the number is too large"),
        (2**1010, "open is left out: it is not a number"),
        (float("nan"), "open is left out: it is not a finite number"),
        ("seven", "open is left out: it is not a number"),
        ([7], "open is left out: it is not a number"),
        (object(), "open is left out: object is not JSON"),
        (Unreadable(), "? is left out: RuntimeError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_bad_value_of_a_per_process_provider_costs_itself_only(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture, value: object, warned: str
) -> None:
    telemetry = client()
    telemetry.provider(lambda: {"pool": {"open": value, "idle": Decimal(3)}}, per_process=True)
    for _ in range(2):
        assert telemetry.report_now().sent
    assert scripted_server.metrics == [{"pool.idle": 3}] * 2
    assert sum(warned in record.getMessage() for record in caplog.records if record.levelname == "WARNING") == 1


class UnreadableMapping(Mapping[object, object]):
    def __getitem__(self, _: object) -> object:
        raise KeyError

    def __iter__(self) -> Iterator[object]:
        raise RuntimeError("it is gone")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("per_process", [False, True])
def test_a_provider_may_return_an_unreadable_mapping(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture, per_process: bool
) -> None:
    telemetry = client()

    def metrics() -> Any:
        return UnreadableMapping()

    telemetry.provider(metrics, per_process=per_process)
    assert [telemetry.report_now().sent for _ in range(2)] == [True, True]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (warning,) = warnings
    assert warning.endswith("metrics failed (RuntimeError): its metrics are left out")
