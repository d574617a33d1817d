"""The sessions of `shm ssh` as its server counts them, with a client that need not behave as OpenSSH's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import DISC_BY_APPLICATION, MSG_CHANNEL_OPEN, MSG_DISCONNECT
from asyncssh.packet import String, UInt32

from shm.cli.ssh.authorized_keys import AuthorizedKey, AuthorizedKeys, encode_public_key
from shm.cli.ssh.console_process import ConsoleProcess, start_fork_server
from shm.cli.ssh.server import SshServer
from shm.core.ssh_settings import SshSettings
from tests.support.server_process import free_port

LIMIT_S = 60
CIPHER = "aes128-gcm@openssh.com"  # with it, asyncssh still decrypts what follows the end of a connection


@asynccontextmanager
async def logged_in(data_dir: Path) -> AsyncIterator[tuple[SshServer, asyncssh.SSHClientConnection]]:
    """A server in this process, with a client after its login. At the end the server stops."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    keys = AuthorizedKeys(data_dir)
    keys.add(AuthorizedKey("Ana", encode_public_key(key), "token-id", "token", datetime.now(UTC)))
    server = SshServer(SshSettings(port=free_port()), keys, asyncssh.generate_private_key("ssh-ed25519"))
    stop = asyncio.Event()
    running = asyncio.create_task(server.run(stop))
    try:
        async with asyncio.timeout(LIMIT_S):
            options = {
                "known_hosts": None,
                "client_keys": [key],
                "agent_path": None,
                "config": None,
                "encryption_algs": CIPHER,
            }
            while (client := await _connect(server.settings.port, options)) is None:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.01)
            async with client:
                yield server, client
    finally:
        stop.set()
        await running


async def _connect(port: int, options: dict[str, Any]) -> asyncssh.SSHClientConnection | None:
    """A connection after its login, or None while the server does not listen yet."""
    try:
        return await asyncssh.connect("127.0.0.1", port, username="any", **options)
    except ConnectionRefusedError:
        return None


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - asyncssh has no event for it
            await asyncio.sleep(0.01)


def test_a_session_of_a_connection_that_has_ended_takes_no_place(tmp_path: Path) -> None:
    """asyncssh asks for the session after it has read the end of the connection, and calls none of its methods."""

    async def scenario() -> None:
        async with logged_in(tmp_path) as (server, client):
            (connection,) = server.connections
            # Both are in the socket when the server reads, in the same event loop.
            client.send_packet(MSG_DISCONNECT, UInt32(DISC_BY_APPLICATION), String(""), String(""))
            client.send_packet(MSG_CHANNEL_OPEN, String("session"), UInt32(0), UInt32(65_536), UInt32(32_768))
            await wait_until(lambda: not server.connections)
            assert not server.has_session(connection)

    asyncio.run(scenario())


@pytest.mark.long
def test_a_fault_of_a_sessions_supervision_takes_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is that of a machine that refuses the signal."""

    def refuse(_: ConsoleProcess) -> None:
        raise PermissionError

    monkeypatch.setattr(ConsoleProcess, "terminate", refuse)
    start_fork_server()

    async def scenario() -> None:
        async with logged_in(tmp_path) as (server, client):
            (connection,) = server.connections
            process = await client.create_process(term_type="xterm")
            process.stdin.write_eof()
            await process.wait_closed()
            await wait_until(lambda: not server.has_session(connection))

    asyncio.run(scenario())
