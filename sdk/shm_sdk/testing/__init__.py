"""For the tests of host applications: a SHM server within the test, and a clock that the test moves.

    pytest_plugins = ["shm_sdk.testing"]

    def test_orders_are_reported(shm_server, shm_clock):
        telemetry = make_telemetry(server_url=shm_server.url)
        telemetry.start()
        shm_clock.advance(hours=1)
        shm_server.assert_reported(orders=8)

Without pytest: `running_server()` and `frozen_clock()` are context managers.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shm_sdk.clock import get_clock, set_clock
from shm_sdk.testing.clock import FrozenClock
from shm_sdk.testing.server import ReceivedRequest, ShmServer, running_server

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import pytest

__all__ = ["FrozenClock", "ReceivedRequest", "ShmServer", "frozen_clock", "running_server"]


@contextmanager
def frozen_clock(start: "datetime | None" = None) -> Iterator[FrozenClock]:
    """The time of the SDK stands still within the context, and `advance` moves it. It begins now, or at `start`."""
    previous, clock = get_clock(), FrozenClock(start)
    set_clock(clock)
    try:
        yield clock
    finally:
        set_clock(previous)


try:
    import pytest
except ImportError:  # the context managers need no pytest
    pass
else:

    @pytest.fixture
    def shm_clock() -> Iterator[FrozenClock]:
        """The frozen clock of the SDK and of `shm_server`."""
        with frozen_clock() as clock:
            yield clock

    @pytest.fixture
    def shm_server(monkeypatch: pytest.MonkeyPatch, tmp_path: "Path") -> Iterator[ShmServer]:
        """A server for this test. A Client without arguments for them finds it, and a data directory of its own.

        Variables of the developer's machine that turn telemetry off are removed.
        """
        for name in ("DO_NOT_TRACK", *(name for name in os.environ if name.startswith("SHM_"))):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("SHM_DATA_DIR", str(tmp_path / "shm-data"))
        monkeypatch.setenv("SHM_ENVIRONMENT", "test")
        with running_server() as server:
            monkeypatch.setenv("SHM_SERVER_URL", server.url)
            yield server
