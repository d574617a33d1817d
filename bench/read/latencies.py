"""What an endpoint's answers took at each fleet, and what that says of the promises."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.read.endpoints import Endpoint
from bench.read.seeded_fleet import Estate
from bench.support.report import Spread, say_aim

RATIO_AIM = 1.5
MARKS_AIM = 10.0
HISTORY_AIM = 1.2
BOUND_S = 2.0  # for what has to look at each instance: still an answer that somebody waits for

COLUMNS = (
    *(("", 22), ("small", 13), ("large", 13), ("large/small", 18), ("large/SELECT 1", 14)),
    ("tenfold history", 18),
)

Tenfold = Sequence[tuple[Estate, Estate]]


@dataclass
class Readings:
    """Milliseconds by fleet, round by round."""

    endpoint: Endpoint
    taken: dict[Estate, list[list[float]]] = field(default_factory=dict)

    def enter(self, taken: dict[Estate, list[float]]) -> None:
        """A round."""
        for estate, each in taken.items():
            self.taken.setdefault(estate, []).append(each)

    def p50(self, estate: Estate) -> float:
        """Of all rounds."""
        return statistics.median(self._all(estate))

    def p99(self, estate: Estate) -> float:
        """Of all rounds."""
        return statistics.quantiles(self._all(estate), n=100, method="inclusive")[98]

    def ratio(self, estate: Estate, other: Estate) -> Spread:
        """Of the medians, round by round."""
        pairs = zip(self.taken[estate], self.taken[other], strict=True)
        return Spread([statistics.median(one) / statistics.median(another) for one, another in pairs])

    def to_mark(self, estate: Estate, mark: "Readings") -> float:
        """How many times a `SELECT 1` through the same stack."""
        return self.p50(estate) / mark.p50(estate)

    def row(self, small: Estate, large: Estate, tenfold: Tenfold, mark: "Readings") -> tuple[str, ...]:
        """Of the table."""
        return (
            self.endpoint.name,
            *(f"{self.p50(estate):.2f}/{self.p99(estate):.2f}" for estate in (small, large)),
            self.ratio(large, small).shown(2),
            f"{self.to_mark(large, mark):.1f}",
            " ".join(self.ratio(more, estate).shown(2) for estate, more in tenfold),
        )

    def _all(self, estate: Estate) -> list[float]:
        return [each for taken in self.taken[estate] for each in taken]


def say_aims(found: Sequence[Readings], small: Estate, large: Estate, tenfold: Tenfold, mark: Readings) -> None:
    """Each promise with its worst figure, and all that break it."""
    constant = [readings for readings in found if readings.endpoint.is_constant]
    ratios = {each.endpoint.name: each.ratio(large, small).median for each in constant}
    marks = {each.endpoint.name: each.to_mark(large, mark) for each in constant}
    grown = {each.endpoint.name: max(each.ratio(more, estate).median for estate, more in tenfold) for each in constant}
    _say(f"at {large.installs:,} at most {RATIO_AIM} times the time at {small.installs:,}", ratios, RATIO_AIM)
    _say(f"at {large.installs:,} under {MARKS_AIM:.0f} times a SELECT 1", marks, MARKS_AIM)
    _say(f"ten times the raw history at most {HISTORY_AIM} times the time", grown, HISTORY_AIM)
    bound = {each.endpoint.name: each.p99(large) / 1e3 for each in found if not each.endpoint.is_constant}
    if bound:
        _say(f"what looks at each instance, p99 within {BOUND_S:.0f} s", bound, BOUND_S, " s")


def _say(aim: str, figures: dict[str, float], most: float, unit: str = "") -> None:
    worst = sorted(figures, key=lambda name: -figures[name])
    beyond = [name for name in worst if figures[name] > most] or worst[:1]
    said = ", ".join(f"{name} {figures[name]:.2f}{unit}" for name in beyond)
    say_aim(aim, said, met=figures[worst[0]] <= most)
