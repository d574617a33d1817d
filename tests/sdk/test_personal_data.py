"""Values that say who somebody is are not sent, and ordinary values are."""

import logging
import time
from collections.abc import Callable

import pytest

from shm_sdk import Client
from shm_sdk.personal_data import describe_personal
from shm_sdk.snapshot import sanitize
from tests.support.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ada@example.com", "an e-mail address"),
        ("Ada Lovelace <ada.l+x@mail.example.co.uk>", "an e-mail address"),
        ("postgres://ledger:secret@db/ledger", "a URL with a password"),
        ("203.0.113.7", "an IP address"),
        ("connected to 10.1.2.3:5432.", "an IP address"),
        ("[2001:db8::7]:443", "an IP address"),
        ("fe80::1ff:fe23:4567:890a%eth0", "an IP address"),
        ("::ffff:203.0.113.7", "an IP address"),
        ("00:1a:2b:3c:4d:5e", "a hardware address"),
        ("00-1A-2B-3C-4D-5E", "a hardware address"),
        ("/home/ada/ledger.db", "a path of a user's home directory"),
        ("file:///Users/ada/x", "a path of a user's home directory"),
        ("C:\\Users\\ada\\ledger", "a path of a user's home directory"),
        ("+49 170 1234567", "a phone number"),
        ("+1 (555) 010-9999", "a phone number"),
        ("(555) 010-9999", "a phone number"),
        ("call 555-010-9999", "a phone number"),
        ("ghp_0123456789abcdefABCDEF", "a key or a token"),
        ("AKIAIOSFODNN7EXAMPLE", "a key or a token"),
        ("sk_live_0123456789abcdef", "a key or a token"),
        ("Authorization: Bearer abc.def-ghi_jk1", "a key or a token"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "a key or a token"),
        ("9f86d081884c7d659a2feaa0c55ad015", "a key or a token"),
        ("q8Zr2LmX4vT9bN1cK7pW3dF6", "a key or a token"),
        ("-----BEGIN PRIVATE KEY-----", "a key or a token"),
    ],
)
def test_personal_texts_are_recognized(text: str, kind: str) -> None:
    assert describe_personal(text) == kind
    assert sanitize({"bad": text, "list": [1, text], text: 3, "in": {text: 4}, "good": 5}).metrics == {
        "list": [1],
        "in": {},
        "good": 5,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fr<FR>&co ünï",
        "1.4.2",
        "v1.4.2-rc.1+20261129",
        "3.11.7",
        "10.0.19045",
        "PostgreSQL 15.4 (Debian 15.4-1.pgdg120+1) on x86_64-pc-linux-gnu",
        "2026-11-29T12:00:30.250000Z",
        "2026-11-29 12:00:30+01:00",
        "12:30:45",
        "c77af682-9aa4-412e-904a-c307d3a8a9c2",
        "linux/amd64",
        "Europe/Berlin",
        "std::vector",
        "/var/lib/ledger",
        "/usr/lib/python3.11/site-packages",
        "https://example.com/home/page",
        "D:\\ledger\\data",
        "127.0.0.1",
        "::1",
        "999.1.1.1",
        "npm_packages_installed",
        "shm_reports_sent_total",
        "tokens issued",
        "basic subscriptions",
        "usersActiveLast30DaysByPlanAndRegion2",
        "3.14159265358979323846264338327950288",
        "12345678901234567890123456789012345",
        "django-oauth-toolkit==2.3.0,psycopg2==2.9.9",
        "@scope/package@1.2.3",
        "42ea7d9",
        "in 2024-2025: 123-456",
        "x" * 2000,
    ],
)
def test_ordinary_texts_are_sent(text: str) -> None:
    assert describe_personal(text) is None


@pytest.mark.parametrize(
    "repeated", ["é", "@", "a@", "1.", "1:", ":", "+1", "(", "/home", "a1", "eyJ", "://", ":/a:", " ", "0-"]
)
def test_no_text_takes_long(repeated: str) -> None:
    started_at = time.process_time()
    for _ in range(100):
        describe_personal(repeated * 5000)
    assert time.process_time() - started_at < 1


def test_the_developer_is_told_once_without_the_value(
    client: Callable[..., Client], scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = client()
    telemetry.provider(lambda: {"owner": "ada@example.com", "logins": {"ada@example.com": 3, "orders": 8}})
    with caplog.at_level(logging.DEBUG):
        assert [telemetry.report_now().sent for _ in range(2)] == [True] * 2
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "the metric owner is left out: it looks like an e-mail address",
        "the metric logins.? is left out: its key looks like an e-mail address",
    ]
    assert "ada" not in caplog.text
    assert scripted_server.metrics == [{"logins": {"orders": 8}}] * 2
