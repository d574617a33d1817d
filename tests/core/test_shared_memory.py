"""What the workers of a server count in: a sum never falls, and what has no room does no harm."""

from shm.core.shared_memory import CELLS, MAX_SERIES_CELLS, Series, WorkerSlots


def test_a_replacement_counts_on_from_what_stands_in_its_place() -> None:
    slots = WorkerSlots(2)
    first = slots.slot(1)
    first.allocate("requests", ("snapshot", "202"))
    first.cells[first.allocate("seconds", (), 3) + 2] = 0.5
    replacement = slots.slot(1)
    replacement.cells[replacement.allocate("requests", ("snapshot", "202"))] += 7
    replacement.cells[replacement.allocate("requests", ("snapshot", "400"))] += 1
    assert list(slots.slot(1).series()) == [
        Series("requests", ("snapshot", "202"), [7.0]),
        Series("seconds", (), [0.0, 0.0, 0.5]),
        Series("requests", ("snapshot", "400"), [1.0]),
    ]
    assert list(slots.slot(0).series()) == []


def test_a_worker_that_is_killed_while_it_claims_has_claimed_nothing() -> None:
    slots = WorkerSlots(1)
    slot = slots.slot(0)
    slot.allocate("first", ())
    length = slot._length[0]
    slot.allocate("a longer name that was being written", ())
    slot._length[0] = length
    replacement = slots.slot(0)
    replacement.cells[replacement.allocate("second", ())] = 2.0
    assert list(slots.slot(0).series()) == [Series("first", (), [0.0]), Series("second", (), [2.0])]


def test_a_series_without_room_is_dropped_alone() -> None:
    """What has no room is counted where nobody reads and its neighbours stay."""
    slots = WorkerSlots(2)
    slot = slots.slot(0)
    for number in range(CELLS):
        slot.cells[slot.allocate("requests", (f"{number}", "x" * 100))] = 1.0
    full = list(slot.series())
    assert len(full) < CELLS
    assert slot.allocate("requests", ("one more", "x" * 100), MAX_SERIES_CELLS) == CELLS
    for cell in range(CELLS, CELLS + MAX_SERIES_CELLS):
        slot.cells[cell] = 1.0
    assert list(slot.series()) == full
    assert list(slots.slot(1).series()) == []
