"""The memory and the subscribers of the change feed."""

from dataclasses import dataclass
from datetime import timedelta

from shm.core.settings.fields import setting
from shm.core.settings.parsers import parse_duration, parse_positive_int


@dataclass(frozen=True, kw_only=True)
class FeedSettings:
    """Change feed."""

    feed_memory: timedelta = setting(
        "SHM_FEED_MEMORY",
        parse_duration,
        "1d",
        "How long the feed remembers the IDs of removed instances. A subscriber that returns later lists "
        "again. The ID is stored no longer than that.",
    )
    feed_subscribers: int = setting(
        "SHM_FEED_SUBSCRIBERS",
        parse_positive_int,
        "2000",
        "Open feeds of one server process. Each costs some 50 KiB of memory and a share of the processor. "
        "Viewers leave 20 of them, of fewer than 40 half, to admins.",
    )
    feed_subscribers_of_token: int = setting(
        "SHM_FEED_SUBSCRIBERS_PER_TOKEN",
        parse_positive_int,
        "500",
        "Open feeds of one token in one server process. A script that opens feeds in a loop cannot use up all of them.",
    )
    heartbeat: timedelta = setting(
        "SHM_FEED_HEARTBEAT",
        parse_duration,
        "15s",
        "Interval of the feed's pings. A dead connection is detected within two of them.",
    )
