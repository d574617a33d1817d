"""Counters of several threads and processes: no count is lost and none is added twice."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client
from shm_sdk.counters import COUNT, LATEST, SUM, Counters, merge_ended, sum_up
from shm_sdk.state import State
from tests.support.scripted_server import ScriptedServer

MakeClient = Callable[..., Client]


def test_counts_are_merged_exactly_once(tmp_path: Path) -> None:
    """Also if the sender is killed between the two steps: the state is saved, the file is not yet removed."""
    child = os.fork()
    if child == 0:
        counters = Counters(lambda: tmp_path)
        counters.change("exports", COUNT, 7)
        counters.change("connections", SUM, 3)
        counters.change("documents", LATEST, 12)
        os._exit(0)
    os.waitpid(child, 0)
    assert sum_up(tmp_path, State(), []) == {"exports": 7, "documents": 12}  # nothing is connected any more
    state = State()
    (file,) = merge_ended(tmp_path, state)
    for _ in range(2):
        assert sum_up(tmp_path, state, []) == {"exports": 7, "documents": 12}
        assert merge_ended(tmp_path, state) == [file]
    file.unlink()
    assert merge_ended(tmp_path, state) == []
    assert sum_up(tmp_path, state, []) == {"exports": 7, "documents": 12}


def test_threads_lose_no_increment(tmp_path: Path) -> None:
    counters = Counters(lambda: tmp_path)

    def count() -> None:
        for _ in range(5000):
            counters.change("exports", COUNT, 1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters.write()
    assert sum_up(tmp_path, State(), []) == {"exports": 40_000}


def test_counters_without_telemetry_touch_no_file(client: MakeClient, tmp_path: Path) -> None:
    for telemetry in (client(), client(enabled=False)):
        telemetry.counter("exports").inc()
        telemetry.gauge("connections").set(1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), "many", None, 10**400])
def test_a_wrong_amount_is_ignored(client: MakeClient, scripted_server: ScriptedServer, amount: Any) -> None:
    telemetry = client()
    telemetry.counter("exports").inc(amount)
    telemetry.gauge("connections").set(amount if amount != -1 else "x")  # type: ignore[arg-type]
    assert telemetry.report_now().sent
    assert scripted_server.metrics == [{}]
