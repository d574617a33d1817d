"""The documented rule for each type of value."""

import sys
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from types import ModuleType

import pytest

from shm_sdk.snapshot import sanitize
from shm_sdk.values import MAX_ARRAY_VALUES, simplify

ID = uuid.UUID("c77af682-9aa4-412e-904a-c307d3a8a9c2")


class Plan(Enum):
    TEAM = "team"
    SIZE = 12
    LIMITS = (1, 2)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (datetime(2026, 11, 29, 12, 0, 30, 250_000, UTC), "2026-11-29T12:00:30.250000Z"),
        (datetime(2026, 11, 29, 12, 0, tzinfo=timezone(timedelta(hours=2))), "2026-11-29T10:00:00Z"),
        (datetime(2026, 11, 29, 12, 0), "2026-11-29T12:00:00"),
        (date(2026, 11, 29), "2026-11-29"),
        (time(8, 30), "08:30:00"),
        (timedelta(minutes=90), 5400.0),
        (ID, str(ID)),
        (PurePosixPath("/var/lib/ledger"), "/var/lib/ledger"),
        (PureWindowsPath("D:\\ledger"), "D:\\ledger"),
        (Plan.TEAM, "team"),
        (Plan.SIZE, 12),
        (Plan.LIMITS, "LIMITS"),
        (Decimal("12.50"), 12.5),
        (Decimal("1e3"), 1000),
        (Decimal(2**70 + 1), 2**70 + 1),
        (Fraction(1, 4), 0.25),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({3, 1}), [1, 3]),
        ((1, "a"), [1, "a"]),
        ([date(2026, 1, 2), Plan.TEAM], ["2026-01-02", "team"]),
    ],
)
def test_the_rule_of_each_type(value: object, sent: object) -> None:
    sanitized = sanitize({"value": value, "in": {"list": [value]}})
    assert (sanitized.metrics, sanitized.dropped) == ({"value": sent, "in": {"list": [sent]}}, [])
    assert type(sanitized.metrics["value"]) is type(sent)


def test_numpy_values_are_pythons_own() -> None:
    numpy = pytest.importorskip("numpy")
    sanitized = sanitize(
        {
            "count": numpy.int64(7),
            "ratio": numpy.float32(0.5),
            "flag": numpy.bool_(True),
            "text": numpy.str_("fr"),
            "day": numpy.datetime64("2026-11-29"),
            "array": numpy.array([[1, 2], [3, 4]]),
            "nan": numpy.float64("nan"),
            "large": numpy.zeros(MAX_ARRAY_VALUES + 1),
        }
    )
    assert sanitized.metrics == {
        "count": 7,
        "ratio": 0.5,
        "flag": True,
        "text": "fr",
        "day": "2026-11-29",
        "array": [[1, 2], [3, 4]],
    }
    assert sanitized.metrics["flag"] is True
    assert [line.split(":")[0] for line in sanitized.dropped] == ["nan", "large"]


def test_a_bad_item_does_not_drop_its_list() -> None:
    sanitized = sanitize({"list": [1, object(), {"ok": 2, "bad": b"x"}, [object()], float("nan"), 3]})
    assert sanitized.metrics == {"list": [1, {"ok": 2}, [], 3]}
    assert [line.split(":")[0] for line in sanitized.dropped] == ["list[1]", "list.bad", "list[0]", "list[4]"]


def test_a_value_is_converted_while_another_thread_imports_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uuid", ModuleType("uuid"))
    assert simplify(Decimal("1.5")) == 1.5
