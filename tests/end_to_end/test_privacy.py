"""Whoever asks, however wrongly, and whatever goes wrong meanwhile: no log, answer or table knows who it was."""

import hashlib
import itertools
import json
import re
import signal
import socket
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.answers import OF_THE_READERS
from tests.support.databases import admin_cursor
from tests.support.hostile import CASES, Case
from tests.support.hostile.case import post, signed, snapshot
from tests.support.houses import House, house_with_servers, wait_for
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.stranger import TRACES, Stranger, marked, rows_as_text

PROTOCOL = Path(__file__).parent.parent.parent / "docs" / "protocol.md"
CODE = re.compile(rb'"code":"([a-z_]+)"')
AT_ONCE = 40  # more than SHM_QUEUE
SENT = "qz9k"  # what installs say of themselves: it stands in tables and answers, and in no log
VIEWER = "viewer-zqx7-0123456789"

# A full disk has tests of its own; an ending server takes no new connection; the envelope lets nothing unstorable in.
NOT_PROVOKED = {"database_full", "shutting_down", "unstorable"}

HURRIED = {
    "SHM_LOG_LEVEL": "debug",
    "SHM_DB_PATIENCE": "1s",
    "SHM_STATEMENT_TIMEOUT": "1s",
    "SHM_BODY_TIMEOUT": "1s",
    "SHM_QUEUE": "20",
    "SHM_FEED_SUBSCRIBERS": "1",
    "SHM_MAX_TOKENS": "4",  # both servers' own, the viewer's, and one that is made
}
STRICT = {
    "SHM_ACTIVATION": "manual",
    "SHM_RATELIMIT_ENABLED": "true",
    "SHM_RATELIMIT_REGISTER_BURST": "10",
    "SHM_TRUSTED_PROXIES": "127.0.0.77/32",
}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "x" * 24,
    "Sec-WebSocket-Version": "13",
}
ADMIN = "/api/v1/admin"
NOBODY = f"{ADMIN}/instances/{uuid.uuid4()}"
READS = [
    *("/api/v1/ready", "/api/v1/healthcheck", "/nowhere?token=zqx7", f"{ADMIN}/stats?token=zqx7", f"{ADMIN}/stats"),
    *(f"{ADMIN}/applications", f"{ADMIN}/applications/nothing", f"{ADMIN}/instances?limit=1", f"{ADMIN}/feed", NOBODY),
    *(f"{ADMIN}/tokens", f"{ADMIN}/tokens?after=zqx7"),
    *(f"{ADMIN}/instances?limit=zqx7", f"{ADMIN}/instances?after=zqx7", f"{ADMIN}/instances?app=%ffzqx7", "/metrics"),
]


@pytest.mark.parametrize(
    "debugging",
    [{}, {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "always"}],
    ids=["as usual", "asyncio in debug mode"],
)
def test_nothing_that_goes_wrong_leaves_a_trace_of_who_was_there(open_folder: Path, debugging: dict[str, str]) -> None:
    with house_with_servers(open_folder, 1, **HURRIED, **debugging) as house:
        (server,) = house.servers
        strict = ServerProcess(open_folder / "strict", {"SHM_DB_DSN": house.dsn, **HURRIED, **STRICT, **debugging})
        house.servers.append(strict)
        strict.start()
        stranger, limited = Stranger(server.port), Stranger(strict.port)

        send_corpus(stranger, CASES, [arrived(stranger) for _ in CASES])
        read_with_every_token(stranger, server, house)
        made = make_and_remove_tokens(stranger, server, house)
        use_up_every_limit(limited)
        break_the_database(stranger, server, house)
        ask_while_the_database_is_away(stranger, server, house)

        for each in house.servers:
            assert each.terminate() == 0
            assert "asyncio: " in each.log  # the loggers of libraries speak too
        answers = stranger.answers + limited.answers
        assert provoked(answers) == documented() - NOT_PROVOKED
        tokens = [server.admin_token, strict.admin_token]
        hold(b"".join(answers).decode("latin1"), *TRACES, *tokens)
        hold("\n".join(rows_as_text(house.dsn)), *TRACES, *tokens, made)
        for log in (server.log, strict.log, (house.cluster / "log").read_text()):
            hold(log, *TRACES, *tokens, made, SENT, f" {socket.gethostname()} ")


def send_corpus(stranger: Stranger, cases: Sequence[Case], installs: Sequence[Install]) -> None:
    """Hostile requests, as far as their own strangeness lets them say who it is; installs take turns."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [
            pool.submit(stranger.send, marked(case.raw(install)), half_close=case.waits)
            for case, install in zip(cases, itertools.cycle(installs), strict=False)
        ]
        for job in jobs:
            job.result()
    endless = marked(post("/v1/snapshot", b"{}", {})).replace(b"Content-Length: 2", b"Content-Length: 60")
    stranger.send(endless)


def arrived(stranger: Stranger) -> Install:
    """An install that the stranger has registered and activated."""
    install = Install("", app_name=f"Application {SENT}", environment=SENT)
    stranger.send(marked(post("/v1/register", install.registration(), {})))
    stranger.send(marked(signed("/v1/activate", install, ACTIVATE)))
    return install


ACTIVATE = b'{"action":"activate"}'


def read_with_every_token(stranger: Stranger, server: ServerProcess, house: House) -> None:
    """All addresses of readers, with a bad token, none, a viewer's and an admin's; decisions, and the feed."""
    with admin_cursor(house.dsn) as cursor:
        cursor.execute("INSERT INTO tokens (token_hash, role, name) VALUES (%s, 'viewer', 'test')", (hashed(VIEWER),))
    viewer, admin = {"Authorization": f"Bearer {VIEWER}"}, server.headers
    for path in READS:
        for headers in ({}, {"Authorization": ""}, viewer, admin):
            stranger.ask(f"GET {path}", headers)
    decided = f"POST {ADMIN}/instances/{arrived(stranger).instance_id}"
    for decision, headers in (("revoke", viewer), ("revoke", admin), ("approve", admin)):
        stranger.ask(f"{decided}/{decision}", headers)
    assert b"101 Switching Protocols" in stranger.ask(f"GET {ADMIN}/feed", admin | UPGRADE, enough=1)
    for odd in ({"Sec-WebSocket-Version": "99"}, {"Origin": "https://origin-zqx7.example"}):
        stranger.ask(f"GET {ADMIN}/feed", admin | UPGRADE | odd)
    with stranger.asking(
        f"GET {ADMIN}/feed", admin | UPGRADE
    ):  # it is told that there are too many, or is the last one
        stranger.ask(f"GET {ADMIN}/feed", admin | UPGRADE, enough=1_000)


def make_and_remove_tokens(stranger: Stranger, server: ServerProcess, house: House) -> str:
    """As many as there may be and one more, bodies that cannot be read, and an end; returns the one that was made."""
    for body in (b'{"name":"zqx7","role":"viewer","unknown":"zqx7"}', b"zqx7", b'{"name":"zqx7' + b"7" * 100_000):
        stranger.ask(f"POST {ADMIN}/tokens", server.headers, body=body)
    wanted = f'{{"name":"{SENT}","role":"viewer","expires_in":"1d"}}'.encode()
    made, refused = (stranger.ask(f"POST {ADMIN}/tokens", server.headers, body=wanted) for _ in range(2))
    assert b"too_many_tokens" in refused
    with admin_cursor(house.dsn) as cursor:
        cursor.execute("SELECT id FROM tokens WHERE token_hash = %s", (hashed(server.admin_token),))
        (own,) = cursor.fetchone() or ("",)
    for path in (f"{ADMIN}/tokens/{own}", f"{ADMIN}/tokens/{uuid.uuid4()}"):
        stranger.ask(f"DELETE {path}", server.headers)
    return json.loads(made.partition(b"\r\n\r\n")[2])["token"]  # type: ignore[no-any-return]


def hashed(token: str) -> bytes:
    """As a token is stored."""
    return hashlib.sha256(token.encode()).digest()


def use_up_every_limit(stranger: Stranger) -> None:
    """Snapshots before an approval, more registrations than are allowed, more bad tokens than are borne."""
    install = arrived(stranger)
    stranger.send(marked(snapshot(install, b'{"a":1}')))
    for number in range(12):
        stranger.send(marked(post("/v1/register", install.registration(), {})))
        stranger.ask(f"GET {ADMIN}/stats", {"Authorization": f"Bearer guess-zqx7-{number}"})


def break_the_database(stranger: Stranger, server: ServerProcess, house: House) -> None:
    """Statements that wait, and tables that are not there: faults, as no install can make them."""
    installs = [arrived(stranger) for _ in range(AT_ONCE)]
    with admin_cursor(house.dsn) as cursor, ThreadPoolExecutor(AT_ONCE) as pool:
        cursor.execute("BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")
        list(pool.map(lambda install: stranger.send(marked(snapshot(install, b'{"a":1}'))), installs))
        cursor.execute("ROLLBACK")
        for table in ("snapshots", "instances", "applications", "tokens"):
            cursor.execute(f"ALTER TABLE {table} RENAME TO away")
            ask_everything(stranger, server, installs[0])
            cursor.execute(f"ALTER TABLE away RENAME TO {table}")


def ask_while_the_database_is_away(stranger: Stranger, server: ServerProcess, house: House) -> None:
    """It dies under load, and stays away for a while."""
    installs = [arrived(stranger) for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        before = pool.map(lambda install: stranger.send(marked(snapshot(install, b'{"a":1}'))), installs)
        house.kill_postgres(signal.SIGQUIT)
        during = pool.map(lambda install: stranger.send(marked(snapshot(install, b'{"a":2}'))), installs)
        asked = pool.map(lambda install: ask_everything(stranger, server, install), installs[:3])
        send_corpus(stranger, CASES[::4], installs)
        for each in (before, during, asked):
            list(each)
    house.start_postgres()
    wait_for(house.is_ready, "every server ready")


def ask_everything(stranger: Stranger, server: ServerProcess, install: Install) -> None:
    """One good request to each address."""
    stranger.send(marked(post("/v1/register", install.registration(), {})))
    stranger.send(marked(signed("/v1/activate", install, ACTIVATE)))
    stranger.send(marked(signed("/v1/disclose", install, b'{"action":"disclose"}')))
    stranger.send(marked(snapshot(install, b'{"qz9k":1}')))
    for path in READS:
        stranger.ask(f"GET {path}", server.headers)
    stranger.ask(f"GET {ADMIN}/feed", server.headers | UPGRADE, enough=1)


def documented() -> set[str]:
    """Every code that the server can answer."""
    table = PROTOCOL.read_text().partition("## Refusals")[2].partition("## Test vectors")[0]
    return set(re.findall(r"`([a-z]+_[a-z_]+)`", table)) | OF_THE_READERS


def provoked(answers: list[bytes]) -> set[str]:
    """Every code that was answered."""
    return {code.decode() for answer in answers for code in CODE.findall(answer)}


def hold(text: str, *traces: str) -> None:
    """None of the traces stands in the text."""
    for trace in traces:
        place = text.find(trace)
        assert place < 0, text[max(0, place - 300) : place + 100]
