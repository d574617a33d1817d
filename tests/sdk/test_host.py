"""What a host application may do to us, and what we never do to it."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable

import pytest

from shm_sdk import Client, Result
from tests.support.peer import Peer, reply

MakeClient = Callable[..., Client]


def welcoming(peer: Peer) -> Peer:
    """A peer that takes whatever is sent."""
    for path, status in (("register", 201), ("activate", 200), ("snapshot", 202)):
        peer.will(f"/v1/{path}", reply(status))
    return peer


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, SystemExit, RecursionError])
def test_whatever_a_provider_raises_stays_with_us(client: MakeClient, peer: Peer, error: type[BaseException]) -> None:
    welcoming(peer)
    telemetry = client()

    @telemetry.provider
    def fails() -> dict[str, object]:
        raise error

    @telemetry.provider
    def works() -> dict[str, object]:
        return {"works": 1}

    assert telemetry.report_now().sent
    assert b'"works":1' in peer.requests[-1].body.replace(b" ", b"")


def test_a_key_that_cannot_be_shown_costs_only_itself(client: MakeClient, peer: Peer) -> None:
    class Nameless:
        def __str__(self) -> str:
            raise RuntimeError

    welcoming(peer)
    telemetry = client()
    telemetry.provider(lambda: {Nameless(): 1, "works": 1})  # type: ignore[type-var]
    assert telemetry.report_now().sent


def test_an_async_provider_costs_its_metrics_and_one_line(
    client: MakeClient, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    welcoming(peer)
    telemetry = client()

    async def metrics() -> dict[str, object]:
        return {"never": 1}

    telemetry.provider(metrics)  # type: ignore[type-var]
    with caplog.at_level(logging.WARNING, "shm_sdk"):
        assert telemetry.report_now().sent
        assert telemetry.report_now().sent
    assert caplog.text.count("async def") == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python's own, about what is tried here
def test_a_fork_in_the_middle_of_a_report_leaves_a_child_that_reports(client: MakeClient, peer: Peer) -> None:
    welcoming(peer)
    telemetry = client()
    inside, go_on = threading.Event(), threading.Event()

    @telemetry.provider
    def waits() -> dict[str, object]:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            go_on.wait(30)
        return {}

    parent = threading.Thread(target=telemetry.report_now)
    parent.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:
        os._exit(0 if telemetry.report_now(timeout=10).result is Result.SENT else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go_on.set()
    parent.join()
