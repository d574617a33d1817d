"""Budgets of requests by address, install and token, and bans."""

from dataclasses import dataclass
from datetime import timedelta

from shm.core.settings.fields import setting
from shm.core.settings.parsers import parse_bool, parse_count, parse_duration_or_zero


@dataclass(frozen=True, kw_only=True)
class RateLimitSettings:
    """Rate limits."""

    ratelimit_enabled: bool = setting(
        "SHM_RATELIMIT_ENABLED",
        parse_bool,
        "true",
        "Whether rate limits apply. Switch them off only behind a proxy that limits requests itself.",
    )
    ratelimit_register_requests: int = setting(
        "SHM_RATELIMIT_REGISTER_REQUESTS",
        parse_count,
        "120",
        "Register, activate and signed actions for each address and period. An office with 50 installs "
        "behind one address registers and activates them at once.",
    )
    ratelimit_register_period: timedelta = setting(
        "SHM_RATELIMIT_REGISTER_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these requests. The budget refills steadily and not at the period's end.",
    )
    ratelimit_register_burst: int = setting(
        "SHM_RATELIMIT_REGISTER_BURST",
        parse_count,
        "120",
        "How many of these requests may arrive at the same moment.",
    )
    ratelimit_snapshot_requests: int = setting(
        "SHM_RATELIMIT_SNAPSHOT_REQUESTS",
        parse_count,
        "1",
        "New snapshots for each install and period. One a minute is the shortest interval of the clients. "
        "Repeated snapshots do not count.",
    )
    ratelimit_snapshot_period: timedelta = setting(
        "SHM_RATELIMIT_SNAPSHOT_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these snapshots. The budget refills steadily and not at the period's end.",
    )
    ratelimit_snapshot_burst: int = setting(
        "SHM_RATELIMIT_SNAPSHOT_BURST",
        parse_count,
        "5",
        "How many of them may arrive at the same moment. An install that restarts a few times stays below it.",
    )
    ratelimit_failed_requests: int = setting(
        "SHM_RATELIMIT_FAILED_REQUESTS",
        parse_count,
        "600",
        "Snapshots with a bad signature, of an unknown instance, or repeated, for each address and period. Beyond it "
        "they cost a few statements a second in all, and only known installs with a valid signature are accepted from "
        "the address.",
    )
    ratelimit_failed_period: timedelta = setting(
        "SHM_RATELIMIT_FAILED_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these requests. The budget refills steadily and not at the period's end.",
    )
    ratelimit_failed_burst: int = setting(
        "SHM_RATELIMIT_FAILED_BURST",
        parse_count,
        "600",
        "How many of them may arrive at the same moment, for example from a fleet that repeats itself after an outage.",
    )
    ratelimit_unauthenticated_requests: int = setting(
        "SHM_RATELIMIT_UNAUTHENTICATED_REQUESTS",
        parse_count,
        "1200",
        "Requests for each address and period that have no valid token (badges, health checks, unknown paths) or are "
        "refused ones of installs. Monitors and the readers of a page with badges stay far below it.",
    )
    ratelimit_unauthenticated_period: timedelta = setting(
        "SHM_RATELIMIT_UNAUTHENTICATED_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these requests. The budget refills steadily and not at the period's end.",
    )
    ratelimit_unauthenticated_burst: int = setting(
        "SHM_RATELIMIT_UNAUTHENTICATED_BURST",
        parse_count,
        "200",
        "How many of them may arrive at the same moment. They take the server a tenth of a second.",
    )
    ratelimit_admin_requests: int = setting(
        "SHM_RATELIMIT_ADMIN_REQUESTS",
        parse_count,
        "600",
        "Requests for each API token and period. A console that scrolls and a few scripts stay below it.",
    )
    ratelimit_admin_period: timedelta = setting(
        "SHM_RATELIMIT_ADMIN_PERIOD",
        parse_duration_or_zero,
        "1m",
        "The period of these requests. The budget refills steadily and not at the period's end.",
    )
    ratelimit_admin_burst: int = setting(
        "SHM_RATELIMIT_ADMIN_BURST",
        parse_count,
        "200",
        "How many of them may arrive at the same moment, for example from consoles that reconnect after a restart.",
    )
    ratelimit_bruteforce_threshold: int = setting(
        "SHM_RATELIMIT_BRUTEFORCE_THRESHOLD",
        parse_count,
        "5",
        "Different invalid tokens from one address before the address is banned.",
    )
    ratelimit_bruteforce_ban: timedelta = setting(
        "SHM_RATELIMIT_BRUTEFORCE_BAN",
        parse_duration_or_zero,
        "15m",
        "Length of that ban. It makes guessing slow and cheap for the server. Valid tokens continue to work from "
        "the address.",
    )
    ratelimit_cleanup_interval: timedelta = setting(
        "SHM_RATELIMIT_CLEANUP_INTERVAL",
        parse_duration_or_zero,
        "10m",
        "How often full budgets and ended bans are removed from memory.",
    )
