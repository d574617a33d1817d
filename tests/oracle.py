"""The brute-force truth: what an application's metrics are, recomputed from its raw snapshots alone."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import psycopg2

UNCOUNTED = {"dev", "development", "test", "testing", "ci", "local"}
WINDOW = timedelta(days=30)

INSTANCES = "SELECT instance_id::text, environment, status, last_seen_at FROM instances WHERE app_slug = %s"
SNAPSHOTS = "SELECT instance_id::text, snapshot_at, metrics::text FROM snapshots ORDER BY snapshot_at"

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


@dataclass
class Truth:
    """What `kpis` must say."""

    numbers: dict[str, list[Decimal]]
    flags: dict[str, list[bool]]
    categories: dict[str, Counter[str]]
    active: int
    counted: int

    def kpi(self, key: str, aggregate: str) -> Decimal:
        """The aggregate of a number, exactly; rounded as far as PostgreSQL rounds a mean."""
        values = [Fraction(value) for value in self.numbers[key]]
        exact = sum(values, Fraction()) / (1 if aggregate == "sum" else len(values))
        return Decimal(exact.numerator) / Decimal(exact.denominator)

    def percentile(self, key: str, share: Fraction) -> Fraction:
        """Linear between neighbours."""
        values = sorted(Fraction(value) for value in self.numbers[key])
        place = share * (len(values) - 1)
        low = int(place)
        high = min(low + 1, len(values) - 1)
        return values[low] + (place - low) * (values[high] - values[low])


def truth(database: str, slug: str) -> Truth:
    """Recomputes an application's metrics from raw snapshots."""
    now = datetime.now(UTC)
    connection = psycopg2.connect(database)
    try:
        with connection.cursor() as cursor:
            cursor.execute(INSTANCES, (slug,))
            instances = {row[0]: row[1:] for row in cursor.fetchall()}
            cursor.execute(SNAPSHOTS)
            current = {row[0]: row[1:] for row in cursor.fetchall() if row[0] in instances}
    finally:
        connection.close()
    found = Truth({}, {}, {}, 0, 0)
    for instance_id, (environment, status, last_seen_at) in instances.items():
        snapshot_at, text = current.get(instance_id, (None, "{}"))
        metrics = _decode(text)
        if status == "active" and last_seen_at > now - WINDOW:
            found.active += 1
            if environment.lower() not in UNCOUNTED and metrics.get("sys_ephemeral") is not True:
                found.counted += 1
        if status != "revoked" and snapshot_at is not None and snapshot_at > now - WINDOW:
            for key, value in flat(metrics):
                if isinstance(value, bool):
                    found.flags.setdefault(key, []).append(value)
                elif isinstance(value, int | Decimal):
                    found.numbers.setdefault(key, []).append(Decimal(value))
                elif isinstance(value, str) and len(value) <= 64:
                    found.categories.setdefault(key, Counter())[value] += 1
    return found


def flat(metrics: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves by dotted key."""
    pairs: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        pairs += flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs
