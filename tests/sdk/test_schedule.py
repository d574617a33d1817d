"""The schedule: reports are spread over the fleet and never close together, and retries back off."""

import math
import uuid
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from shm_sdk import Outcome, Result
from shm_sdk.schedule import MAX_REFUSED_DELAY_S, compute_delay, draw_first_delay

SENT = Outcome(Result.SENT, "")
intervals = st.floats(60, 86400)
times = st.floats(1.7e9, 2.5e9)
rngs = st.integers().map(Random)
instances = st.uuids().map(str)


def delay_after(outcome: Outcome, repetitions: int = 1, interval: float = 3600.0, seed: int = 0) -> float:
    return compute_delay(
        outcome,
        repetitions,
        interval_s=interval,
        instance_id=str(uuid.UUID(int=seed)),
        now=1.8e9 + seed,
        rng=Random(seed),
    )


@given(rngs)
def test_the_first_report_follows_after_5_to_15_minutes(rng: Random) -> None:
    assert 300 <= draw_first_delay(rng) <= 900


@given(instances, intervals, times, rngs)
def test_reports_are_at_least_half_an_interval_apart(instance: str, interval: float, now: float, rng: Random) -> None:
    delay = compute_delay(SENT, 1, interval_s=interval, instance_id=instance, now=now, rng=rng)
    assert interval / 2 <= delay <= interval * 1.5


@given(instances, st.integers(60, 86400), times, rngs)
def test_the_slot_does_not_depend_on_the_start(instance: str, interval: int, now: float, rng: Random) -> None:
    def slot(now: float) -> float:
        delay = compute_delay(SENT, 1, interval_s=interval, instance_id=instance, now=now, rng=rng)
        return round(now + delay) % (interval if interval <= 3600 else math.gcd(interval, 3600))

    assert slot(now) == slot(now + 12345.6) == slot(now + 1e6)


@given(instances, st.integers(1, 720), times, rngs)
def test_long_intervals_are_exact_from_the_first_report_on(instance: str, hours: int, now: float, rng: Random) -> None:
    """The first one differs by up to half an hour, for the install's slot."""
    delays = []
    for _ in range(4):
        delays.append(compute_delay(SENT, 1, interval_s=hours * 3600.0, instance_id=instance, now=now, rng=rng))
        now += delays[-1]
    assert abs(delays[0] - hours * 3600) <= 1800
    assert all(abs(delay - hours * 3600) < 0.001 for delay in delays[1:])


def test_a_fleet_restarted_at_once_is_spread() -> None:
    fleet = [str(uuid.UUID(int=Random(number).getrandbits(128))) for number in range(3600)]
    minutes = [0] * 120
    for instance in fleet:
        delay = compute_delay(SENT, 1, interval_s=3600, instance_id=instance, now=1.8e9, rng=Random(0))
        minutes[int(delay // 60)] += 1
    assert max(minutes) < 100  # the average is 60 a minute


@given(st.integers(1, 10_000), intervals, st.integers())
def test_a_back_off_grows_up_to_the_interval(repetitions: int, interval: float, seed: int) -> None:
    delay = compute_delay(
        Outcome(Result.FAILED, ""), repetitions, interval_s=interval, instance_id=None, now=1.8e9, rng=Random(seed)
    )
    assert 0 <= delay <= min(interval, 60 * 2.0 ** min(repetitions - 1, 100))


@given(st.floats(0, 86400), st.integers())
def test_retry_after_is_the_minimum_delay(retry_after: float, seed: int) -> None:
    outcome = Outcome(Result.FAILED, "", 503, retry_after)
    delay = compute_delay(outcome, 1, interval_s=3600, instance_id=None, now=1.8e9, rng=Random(seed))
    assert retry_after <= delay <= retry_after + 60


def test_back_offs_use_their_full_range() -> None:
    delays = sorted(delay_after(Outcome(Result.FAILED, ""), repetitions=10, seed=seed) for seed in range(500))
    assert delays[0] < 100
    assert delays[-1] > 3500


def test_refused_reports_become_daily() -> None:
    refused = Outcome(Result.REFUSED, "", 403)
    delays = [delay_after(refused, repetitions) for repetitions in (1, 2, 3, 10, 10_000)]
    assert delays == sorted(delays)
    assert delays[0] <= 2 * 3600
    assert MAX_REFUSED_DELAY_S <= delays[-1] <= MAX_REFUSED_DELAY_S + 3600


@given(intervals, times, rngs)
def test_a_delay_without_an_identity(interval: float, now: float, rng: Random) -> None:
    delay = compute_delay(Outcome(Result.PENDING, ""), 1, interval_s=interval, instance_id=None, now=now, rng=rng)
    assert interval / 2 <= delay <= interval * 1.5
