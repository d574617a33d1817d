"""When the console draws changes."""

import pytest

from shm_tui.model.draw_pacing import DRAW_INTERVAL_S, INPUT_S, MAX_DELAY_S, START_DRAW_INTERVAL_S, DrawPacing


@pytest.fixture
def pacing() -> DrawPacing:
    """Of a console that has drawn its first data at 10 seconds."""
    pacing = DrawPacing()
    pacing.mark_drawn(10.0)
    pacing.is_started = True
    return pacing


def test_changes_are_drawn_in_intervals(pacing: DrawPacing) -> None:
    assert DrawPacing().due_at() < 0.0, "at once, at the start"
    assert pacing.due_at() == 10.0 + DRAW_INTERVAL_S
    pacing.is_started = False
    assert pacing.due_at() == 10.0 + START_DRAW_INTERVAL_S


def test_the_answer_to_a_key_comes_before_changes(pacing: DrawPacing) -> None:
    pacing.mark_input(10.0 + DRAW_INTERVAL_S - INPUT_S / 2)
    assert pacing.due_at() == pytest.approx(10.0 + DRAW_INTERVAL_S + INPUT_S / 2)
    pacing.mark_input(10.1)
    assert pacing.due_at() == 10.0 + DRAW_INTERVAL_S


def test_a_key_that_is_held_down_delays_changes_no_longer(pacing: DrawPacing) -> None:
    for repetition in range(100):
        pacing.mark_input(10.0 + repetition * INPUT_S / 2)
    assert pacing.due_at() == 10.0 + MAX_DELAY_S


def test_a_key_before_the_first_data_delays_nothing(pacing: DrawPacing) -> None:
    pacing.is_started = False
    pacing.mark_input(10.04)
    assert pacing.due_at() == 10.0 + START_DRAW_INTERVAL_S
