"""The workers' shared memory for metrics: a sum never decreases, and a full slot loses only new series."""

from shm.core.shared_memory import CELLS, MAX_SERIES_CELLS, Series, WorkerSlots


def test_a_replaced_worker_continues_the_counts_of_its_slot() -> None:
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


def test_an_allocation_interrupted_by_a_kill_has_no_effect() -> None:
    slots = WorkerSlots(1)
    slot = slots.slot(0)
    slot.allocate("first", ())
    length = slot._length[0]
    slot.allocate("a longer name whose write is interrupted", ())
    slot._length[0] = length
    replacement = slots.slot(0)
    replacement.cells[replacement.allocate("second", ())] = 2.0
    assert list(slots.slot(0).series()) == [Series("first", (), [0.0]), Series("second", (), [2.0])]


def test_only_series_beyond_a_full_slot_are_dropped() -> None:
    """Their values go to cells that are not exported; other series and slots are unchanged."""
    slots = WorkerSlots(2)
    slot = slots.slot(0)
    for number in range(CELLS):
        slot.cells[slot.allocate("requests", (f"{number}", "x" * 100))] = 1.0
    before = list(slot.series())
    assert len(before) < CELLS
    assert slot.allocate("requests", ("one more", "x" * 100), MAX_SERIES_CELLS) == CELLS
    for cell in range(CELLS, CELLS + MAX_SERIES_CELLS):
        slot.cells[cell] = 1.0
    assert list(slot.series()) == before
    assert list(slots.slot(1).series()) == []
