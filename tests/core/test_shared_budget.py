"""Greedy addresses leave room for others, however many they are."""

from contextlib import ExitStack

import pytest

from shm.core.shared_budget import SharedBudget

MAX_BYTES = 128 * 1024 * 1024
LENGTH = 64 * 1024


@pytest.mark.parametrize(("strangers", "of_one", "free"), [(1, 0.25, 0.75), (10, 0.08, 0.2), (200, 0.006, 0.01)])
def test_addresses_that_take_all_they_can_leave_room(strangers: int, of_one: float, free: float) -> None:
    """The fractions are those of the whole budget."""
    budget, used = SharedBudget(MAX_BYTES), [0] * strangers
    with ExitStack() as stack:
        for _ in range(MAX_BYTES // LENGTH):
            for number in range(strangers):
                address = number.to_bytes(2, "big")
                if not budget.is_share_exhausted_by(address, LENGTH) and not budget.is_exhausted_by(LENGTH):
                    stack.enter_context(budget.use(address, LENGTH))
                    used[number] += LENGTH
        assert max(used) <= of_one * MAX_BYTES
        assert MAX_BYTES - sum(used) >= free * MAX_BYTES
        assert not budget.is_share_exhausted_by(b"honest", LENGTH)
        assert not budget.is_exhausted_by(LENGTH)
    assert not budget.is_share_exhausted_by(b"honest", MAX_BYTES)
    assert not budget.is_exhausted_by(MAX_BYTES)


def test_one_use_of_any_length_is_allowed_and_a_proxy_has_no_share() -> None:
    budget = SharedBudget(100)
    assert not budget.is_exhausted_by(1_000)
    with budget.use(None, 60), budget.use(b"a", 10):
        assert budget.is_exhausted_by(31)
        assert not budget.is_exhausted_by(30)
        assert not budget.is_share_exhausted_by(None, 1_000)
        assert budget.is_share_exhausted_by(b"a", 1)
        assert not budget.is_share_exhausted_by(b"b", 1_000)


def test_the_first_use_of_an_address_may_have_to_leave_room_too() -> None:
    budget = SharedBudget(100)
    assert not budget.is_share_exhausted_by(b"a", 50, is_first_free=False)  # nothing else is in use
    with budget.use(b"a", 50):
        assert not budget.is_share_exhausted_by(b"b", 16, is_first_free=False)
        assert budget.is_share_exhausted_by(b"b", 17, is_first_free=False)
