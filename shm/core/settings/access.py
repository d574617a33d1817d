"""Tokens, which installs may report, and what is public."""

from dataclasses import dataclass

from shm.core.settings.fields import setting
from shm.core.settings.parsers import (
    parse_activation,
    parse_base_url,
    parse_bearer_token,
    parse_bool,
    parse_count,
    parse_positive_int,
    parse_slugs,
    parse_text,
)


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    """Access."""

    admin_token: str | None = setting(
        "SHM_ADMIN_TOKEN",
        parse_text,
        None,
        "The server's own admin token. Without one, the first start creates one in the data directory.",
        has_flag=False,
        is_secret=True,
    )
    public_min_instances: int = setting(
        "SHM_PUBLIC_MIN_INSTANCES",
        parse_count,
        "5",
        "Badges show a figure if at least as many installs are in it. A figure over fewer would tell about "
        "single ones.",
    )
    github_token: str | None = setting(
        "GITHUB_TOKEN",
        parse_bearer_token,
        None,
        "A token of GitHub, for more than 60 refreshes of stars an hour. It needs no permission.",
        has_flag=False,
        is_secret=True,
    )
    github_api: str = setting(
        "SHM_GITHUB_API",
        parse_base_url,
        "https://api.github.com",
        "GitHub's API, which is asked for the stars of the repositories that admins have set: every hour, and when an "
        "admin refreshes them.",
    )
    max_tokens: int = setting(
        "SHM_MAX_TOKENS",
        parse_positive_int,
        "1000",
        "Number of API tokens, expired ones included. One for each person and script stays far below it. The "
        "limit stops a script that creates tokens in a loop.",
    )
    applications: frozenset[str] = setting(
        "SHM_APPLICATIONS",
        parse_slugs,
        "",
        "Names or slugs of the applications whose installs may register, separated by commas. Empty: any. With a "
        "list nobody can invent an application.",
    )
    activation: str = setting(
        "SHM_ACTIVATION",
        parse_activation,
        "tofu",
        "Who may report. tofu: the first key seen for an ID owns that ID and is accepted at once. manual: "
        "an admin approves each install, and its snapshots are refused until then.",
    )
    metrics_public: bool = setting(
        "SHM_METRICS_PUBLIC",
        parse_bool,
        "false",
        "Whether GET /metrics is served without a token. Set it to true where only your monitoring reaches the server.",
    )
