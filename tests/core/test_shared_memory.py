"""What the workers of a server count in: a sum never falls, and what has no room does no harm."""

from shm.core.shared_memory import CELLS, LARGEST, Series, SharedNumbers


def test_a_replacement_counts_on_from_what_stands_in_its_place() -> None:
    numbers = SharedNumbers(2)
    first = numbers.place(1)
    first.claim("requests", ("snapshot", "202"))
    first.cells[first.claim("seconds", (), 3) + 2] = 0.5
    replacement = numbers.place(1)
    replacement.cells[replacement.claim("requests", ("snapshot", "202"))] += 7
    replacement.cells[replacement.claim("requests", ("snapshot", "400"))] += 1
    assert list(numbers.place(1).series()) == [
        Series("requests", ("snapshot", "202"), [7.0]),
        Series("seconds", (), [0.0, 0.0, 0.5]),
        Series("requests", ("snapshot", "400"), [1.0]),
    ]
    assert list(numbers.place(0).series()) == []


def test_a_worker_that_is_killed_while_it_claims_has_claimed_nothing() -> None:
    numbers = SharedNumbers(1)
    place = numbers.place(0)
    place.claim("first", ())
    length = place._length[0]
    place.claim("a longer name that was being written", ())
    place._length[0] = length
    replacement = numbers.place(0)
    replacement.cells[replacement.claim("second", ())] = 2.0
    assert list(numbers.place(0).series()) == [Series("first", (), [0.0]), Series("second", (), [2.0])]


def test_what_has_no_room_is_counted_where_nobody_reads_and_its_neighbours_stay() -> None:
    numbers = SharedNumbers(2)
    place = numbers.place(0)
    for number in range(CELLS):
        place.cells[place.claim("requests", (f"{number}", "x" * 100))] = 1.0
    full = list(place.series())
    assert len(full) < CELLS
    assert place.claim("requests", ("one more", "x" * 100), LARGEST) == CELLS
    for cell in range(CELLS, CELLS + LARGEST):
        place.cells[cell] = 1.0
    assert list(place.series()) == full
    assert list(numbers.place(1).series()) == []
