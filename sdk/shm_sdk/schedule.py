"""When to report next. Pure: clock and random numbers are passed in.

The schedule spreads the reports of a fleet. First reports follow 5 to 15 minutes after the start, so that a process
with a shorter life (a test run, a crash loop) does not count as an install. Later reports follow in a slot derived from
the install's ID, so that a release that restarts all installs at once does not synchronize their reports.
"""

import math
from random import Random

from shm_sdk.outcome import Outcome, Result

MIN_FIRST_DELAY_S = 300.0  # after the start
MAX_FIRST_DELAY_S = 900.0
INITIAL_BACKOFF_S = 60.0  # the upper bound of the first retry's random delay
MAX_BACKOFF_DOUBLINGS = 12  # 60 s doubled 12 times are 68 hours; the report interval is usually shorter
HOUR_S = 3600
MAX_REFUSED_DELAY_S = 86400.0  # a server that refuses for a week gets one request a day


def draw_first_delay(rng: Random) -> float:
    """Seconds from the start to the first report."""
    return rng.uniform(MIN_FIRST_DELAY_S, MAX_FIRST_DELAY_S)


def compute_delay(
    outcome: Outcome, repetitions: int, *, interval_s: float, instance_id: str | None, now: float, rng: Random
) -> float:
    """Seconds to the next report, after `repetitions` outcomes of the same kind in a row (at least 1).

    `now` is Unix time. A back-off is uniform between 0 and its bound (full jitter). The bound is at most the interval;
    the server's `Retry-After` is added to it.
    """
    if outcome.result is Result.FAILED:
        max_backoff_s = min(interval_s, INITIAL_BACKOFF_S * (1 << min(repetitions - 1, MAX_BACKOFF_DOUBLINGS)))
        return (outcome.retry_after or 0.0) + rng.uniform(0, max_backoff_s)
    if outcome.result is Result.REFUSED:
        doubled_s = interval_s * (1 << min(repetitions - 1, MAX_BACKOFF_DOUBLINGS))
        return max(interval_s, min(doubled_s, MAX_REFUSED_DELAY_S)) + rng.uniform(0, interval_s / 2)
    return _seconds_to_slot(interval_s, instance_id, now, rng)


def _seconds_to_slot(interval_s: float, instance_id: str | None, now: float, rng: Random) -> float:
    """Seconds to the install's slot about an interval from now, at least half of it: two reports are never close.

    From slot to slot it is exactly the interval. The first time it differs by half an hour at most, because a longer
    interval has a slot in each hour, or in the part of an hour that divides the interval.
    """
    period_s = interval_s
    if interval_s > HOUR_S and interval_s % 1 == 0:
        period_s = float(math.gcd(int(interval_s), HOUR_S))
    earliest_s = interval_s - period_s / 2
    if instance_id is None:
        return earliest_s + rng.uniform(0, period_s)
    slot = int(instance_id.replace("-", ""), 16) % max(int(period_s), 1)
    return earliest_s + (slot - now - earliest_s) % period_s
