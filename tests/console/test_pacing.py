"""The pause after a request that costs the server a scan."""

from time import monotonic

from shm_client import ServerUnavailableError
from shm_tui.model.pacing import RETRY_S, pause_after

HOUR_S = 3600.0


def test_the_pause_after_a_long_request_is_half_a_minute() -> None:
    """An answer and the server's own limit count; a server that hung has cost nothing, and is asked again soon."""
    started_at = monotonic() - HOUR_S
    assert pause_after(started_at) == 30
    assert pause_after(started_at, ServerUnavailableError("too long", retry_after_s=5)) == 30
    assert pause_after(started_at, ServerUnavailableError("no answer")) == RETRY_S


def test_the_pause_after_a_request_of_a_second_is_nine_times_as_long() -> None:
    assert 9 <= pause_after(monotonic() - 1) < 30
