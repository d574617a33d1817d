"""An endpoint's latencies with each fleet, and the targets for them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.read.endpoints import Endpoint
from bench.read.seeded_fleet import SeededFleet
from bench.support.report import Samples, print_target

MAX_SIZE_RATIO = 1.5
MAX_BASELINE_RATIO = 10.0
MAX_HISTORY_RATIO = 1.2
MAX_SCAN_S = 2.0  # for endpoints that scan all instances: an acceptable wait for a person

COLUMNS = (
    *(("", 22), ("small", 13), ("large", 13), ("large/small", 18), ("large/SELECT 1", 14)),
    ("tenfold history", 18),
)
COORDINATOR_COLUMNS = (("coordinator", 13), ("coordinator/small", 18))

Tenfold = Sequence[tuple[SeededFleet, SeededFleet]]


@dataclass
class Latencies:
    """Milliseconds by fleet and round."""

    endpoint: Endpoint
    rounds: dict[SeededFleet, list[list[float]]] = field(default_factory=dict)

    def add_round(self, latencies: dict[SeededFleet, list[float]]) -> None:
        """Adds the latencies of a round."""
        for fleet, each in latencies.items():
            self.rounds.setdefault(fleet, []).append(each)

    def p50(self, fleet: SeededFleet) -> float:
        """Median of all rounds."""
        return statistics.median(self._all(fleet))

    def p99(self, fleet: SeededFleet) -> float:
        """99th percentile of all rounds."""
        return statistics.quantiles(self._all(fleet), n=100, method="inclusive")[98]

    def ratio(self, fleet: SeededFleet, other: SeededFleet) -> Samples:
        """Of the medians of each round."""
        pairs = zip(self.rounds[fleet], self.rounds[other], strict=True)
        return Samples([statistics.median(one) / statistics.median(another) for one, another in pairs])

    def baseline_ratio(self, fleet: SeededFleet, baseline: "Latencies") -> float:
        """The median as a multiple of a `SELECT 1` through the same stack."""
        return self.p50(fleet) / baseline.p50(fleet)

    def cells(
        self,
        small: SeededFleet,
        large: SeededFleet,
        tenfold: Tenfold,
        baseline: "Latencies",
        distributed: SeededFleet | None,
    ) -> tuple[str, ...]:
        """The cells of the table's row."""
        cells = (
            self.endpoint.name,
            *(self._percentiles(fleet) for fleet in (small, large)),
            self.ratio(large, small).format(2),
            f"{self.baseline_ratio(large, baseline):.1f}",
            " ".join(self.ratio(more, fleet).format(2) for fleet, more in tenfold),
        )
        if distributed is None:
            return cells
        return (*cells, self._percentiles(distributed), self.ratio(distributed, small).format(2))

    def _percentiles(self, fleet: SeededFleet) -> str:
        return f"{self.p50(fleet):.2f}/{self.p99(fleet):.2f}"

    def _all(self, fleet: SeededFleet) -> list[float]:
        return [each for measured in self.rounds[fleet] for each in measured]


def print_targets(
    measured: Sequence[Latencies], small: SeededFleet, large: SeededFleet, tenfold: Tenfold, baseline: Latencies
) -> None:
    """Each target with the endpoints that exceed it, or with the worst one."""
    constant = [latencies for latencies in measured if latencies.endpoint.is_constant]
    by_size = {each.endpoint.name: each.ratio(large, small).median for each in constant}
    by_baseline = {each.endpoint.name: each.baseline_ratio(large, baseline) for each in constant}
    by_history = {
        each.endpoint.name: max(each.ratio(more, fleet).median for fleet, more in tenfold) for each in constant
    }
    size, size_limit = f"{large.installs:,}", f"{MAX_SIZE_RATIO} times the time at {small.installs:,}"
    _print_worst(f"at {size} at most {size_limit}", by_size, MAX_SIZE_RATIO)
    _print_worst(f"at {size} under {MAX_BASELINE_RATIO:.0f} times a SELECT 1", by_baseline, MAX_BASELINE_RATIO)
    _print_worst(f"ten times the history at most {MAX_HISTORY_RATIO} times the time", by_history, MAX_HISTORY_RATIO)
    scans = {each.endpoint.name: each.p99(large) / 1e3 for each in measured if not each.endpoint.is_constant}
    if scans:
        _print_worst(f"endpoints that scan all instances, p99 within {MAX_SCAN_S:.0f} s", scans, MAX_SCAN_S, " s")


def _print_worst(target: str, figures: dict[str, float], limit: float, unit: str = "") -> None:
    worst = sorted(figures, key=lambda name: -figures[name])
    exceeding = [name for name in worst if figures[name] > limit] or worst[:1]
    worst_figures = ", ".join(f"{name} {figures[name]:.2f}{unit}" for name in exceeding)
    print_target(target, worst_figures, met=figures[worst[0]] <= limit)
