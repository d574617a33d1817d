"""When to report next. Pure: knows no clock and no dice but what it is handed.

A fleet is spread on purpose. First reports come 5 to 15 minutes after the start, so what lives shorter (a test run, a
crash loop) never counts as an install; later ones come in a slot of the install's own, so a release that restarts all
installs at once does not make them report at once ever after.
"""

from random import Random

from shm_sdk.outcome import Outcome, Result

FIRST_EARLIEST = 300.0  # seconds after the start
FIRST_LATEST = 900.0
BACKOFF_FIRST = 60.0  # seconds; the first retry comes anywhere within it
BACKOFF_DOUBLINGS = 12  # past these the interval is the bound in any case
REFUSED_LONGEST = 86400.0  # seconds; a server that said no all week is asked once a day


def first_delay(dice: Random) -> float:
    """Seconds from the start to the first report."""
    return dice.uniform(FIRST_EARLIEST, FIRST_LATEST)


def next_delay(
    outcome: Outcome, repeated: int, *, interval: float, instance_id: str | None, now: float, dice: Random
) -> float:
    """Seconds to the next report, after the same kind of outcome came `repeated` times in a row (at least once).

    `now` is Unix time. A back-off is drawn anew from its whole width, and stays under the interval unless the server
    itself asked for more.
    """
    if outcome.result is Result.FAILED:
        width = min(interval, BACKOFF_FIRST * (1 << min(repeated - 1, BACKOFF_DOUBLINGS)))
        return (outcome.retry_after or 0.0) + dice.uniform(0, width)
    if outcome.result is Result.REFUSED:
        doubled = interval * (1 << min(repeated - 1, BACKOFF_DOUBLINGS))
        return max(interval, min(doubled, REFUSED_LONGEST)) + dice.uniform(0, interval / 2)
    return _until_slot(interval, instance_id, now, dice)


def _until_slot(interval: float, instance_id: str | None, now: float, dice: Random) -> float:
    """Seconds to this install's slot, at least half an interval from now, so that two reports never come close."""
    if instance_id is None:
        return dice.uniform(interval / 2, interval * 1.5)
    slot = int(instance_id.replace("-", ""), 16) % max(int(interval), 1)
    until = (slot - now) % interval
    return until if until >= interval / 2 else until + interval
