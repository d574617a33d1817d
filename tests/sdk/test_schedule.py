"""When reports go: spread over the fleet, never close together, and patient with a server in trouble."""

import uuid
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from shm_sdk import Outcome, Result
from shm_sdk.schedule import REFUSED_LONGEST, first_delay, next_delay

SENT = Outcome(Result.SENT, "")
intervals = st.floats(60, 86400)
moments = st.floats(1.7e9, 2.5e9)
dice = st.integers().map(Random)
instances = st.uuids().map(str)


def after(outcome: Outcome, repeated: int = 1, interval: float = 3600.0, seed: int = 0) -> float:
    return next_delay(
        outcome, repeated, interval=interval, instance_id=str(uuid.UUID(int=seed)), now=1.8e9 + seed, dice=Random(seed)
    )


@given(dice)
def test_the_first_report_comes_five_to_fifteen_minutes_after_the_start(dice: Random) -> None:
    assert 300 <= first_delay(dice) <= 900


@given(instances, intervals, moments, dice)
def test_two_reports_are_never_closer_than_half_an_interval(
    instance: str, interval: float, now: float, dice: Random
) -> None:
    delay = next_delay(SENT, 1, interval=interval, instance_id=instance, now=now, dice=dice)
    assert interval / 2 <= delay <= interval * 1.5


@given(instances, st.integers(60, 86400), moments, dice)
def test_an_install_keeps_its_slot_whenever_it_was_started(
    instance: str, interval: int, now: float, dice: Random
) -> None:
    def slot(moment: float) -> float:
        delay = next_delay(SENT, 1, interval=interval, instance_id=instance, now=moment, dice=dice)
        return round(moment + delay) % interval

    assert slot(now) == slot(now + 12345.6) == slot(now + 1e6)


def test_installs_restarted_at_once_do_not_report_at_once_ever_after() -> None:
    fleet = [str(uuid.UUID(int=Random(number).getrandbits(128))) for number in range(3600)]
    minutes = [0] * 120
    for instance in fleet:
        delay = next_delay(SENT, 1, interval=3600, instance_id=instance, now=1.8e9, dice=Random(0))
        minutes[int(delay // 60)] += 1
    assert max(minutes) < 100  # 60 a minute on the average


@given(st.integers(1, 10_000), intervals, st.integers())
def test_a_back_off_grows_up_to_the_interval_and_no_further(repeated: int, interval: float, seed: int) -> None:
    delay = next_delay(
        Outcome(Result.FAILED, ""), repeated, interval=interval, instance_id=None, now=1.8e9, dice=Random(seed)
    )
    assert 0 <= delay <= min(interval, 60 * 2.0 ** min(repeated - 1, 100))


@given(st.floats(0, 86400), st.integers())
def test_a_server_that_names_a_pause_gets_at_least_that_pause(pause: float, seed: int) -> None:
    outcome = Outcome(Result.FAILED, "", 503, pause)
    delay = next_delay(outcome, 1, interval=3600, instance_id=None, now=1.8e9, dice=Random(seed))
    assert pause <= delay <= pause + 60


def test_back_offs_are_drawn_from_their_whole_width() -> None:
    drawn = sorted(after(Outcome(Result.FAILED, ""), repeated=10, seed=seed) for seed in range(500))
    assert drawn[0] < 100
    assert drawn[-1] > 3500


def test_a_server_that_refuses_is_asked_ever_less_often_down_to_once_a_day() -> None:
    refused = Outcome(Result.REFUSED, "", 403)
    delays = [after(refused, repeated) for repeated in (1, 2, 3, 10, 10_000)]
    assert delays == sorted(delays)
    assert delays[0] <= 2 * 3600
    assert REFUSED_LONGEST <= delays[-1] <= REFUSED_LONGEST + 3600


@given(intervals, moments, dice)
def test_without_an_identity_yet_the_next_try_still_comes(interval: float, now: float, dice: Random) -> None:
    delay = next_delay(Outcome(Result.PENDING, ""), 1, interval=interval, instance_id=None, now=now, dice=dice)
    assert interval / 2 <= delay <= interval * 1.5
