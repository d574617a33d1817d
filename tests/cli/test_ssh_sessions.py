"""The sessions of `shm ssh` as its server counts them, with a client that need not behave as OpenSSH's."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.channel import SSHClientChannel
from asyncssh.constants import DISC_BY_APPLICATION, MSG_CHANNEL_OPEN, MSG_DISCONNECT, MSG_GLOBAL_REQUEST, MSG_KEXINIT
from asyncssh.packet import Boolean, NameList, String, UInt32

from shm.cli.ssh.authorized_keys import AuthorizedKey, AuthorizedKeys, encode_public_key
from shm.cli.ssh.console_process import ConsoleProcess, start_fork_server
from shm.cli.ssh.server import MAX_OFFERED_KEYS, MAX_VARIABLES_BYTES, SshServer
from shm.cli.ssh.session import ConsoleSession
from shm.core.settings import SshSettings
from tests.support.server_process import free_port

SERVER = "shm.cli.ssh.server"
LIMIT_S = 60
CIPHER = "aes128-gcm@openssh.com"  # with it, asyncssh still decrypts what follows the end of a connection


@asynccontextmanager
async def logged_in(
    data_dir: Path, client_factory: Callable[[list[asyncssh.SSHKeyPair]], asyncssh.SSHClient] | None = None
) -> AsyncIterator[tuple[SshServer, asyncssh.SSHClientConnection]]:
    """A server in this process, with a client after its login. At the end the server stops.

    A factory gets the authorized keys of Ana and of Vic. Without one, the client has Ana's.
    """
    private = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("Ana", "Vic")}
    pairs = asyncssh.load_keypairs(list(private.values()))
    keys = AuthorizedKeys(data_dir)
    for name, key in private.items():
        keys.add(AuthorizedKey(name, encode_public_key(key), f"token of {name}", "token", datetime.now(UTC)))
    server = SshServer(SshSettings(port=free_port()), keys, asyncssh.generate_private_key("ssh-ed25519"))
    stop = asyncio.Event()
    running = asyncio.create_task(server.run(stop))
    try:
        async with asyncio.timeout(LIMIT_S):
            options = {
                "known_hosts": None,
                "client_keys": None if client_factory else pairs[:1],
                "client_factory": (lambda: client_factory(list(pairs))) if client_factory else None,
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


class ManyKeys(asyncssh.SSHClient):
    """Asks for keys one after the other: unknown ones, then authorized ones. It can sign with the last one only."""

    def __init__(self, pairs: list[asyncssh.SSHKeyPair]) -> None:
        unknown = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(MAX_OFFERED_KEYS - len(pairs))]
        self._pairs = [*asyncssh.load_keypairs(unknown), *pairs]

    def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        """Called by asyncssh for the next key."""
        if len(self._pairs) > 1:
            self._pairs[0].sign = refuse_to_sign  # type: ignore[assignment, method-assign]
        return self._pairs.pop(0) if self._pairs else None


def refuse_to_sign(_: bytes) -> bytes:
    """What a client does whose user does not confirm the use of a key, or has unplugged it."""
    raise ValueError


@pytest.mark.parametrize("signer", ["Ana", "Vic"])
def test_a_session_has_the_role_of_the_key_that_signed(tmp_path: Path, signer: str) -> None:
    """Whatever other keys the client asks for before it, up to the limit."""

    async def scenario() -> None:
        factory = lambda pairs: ManyKeys(pairs if signer == "Vic" else pairs[::-1])  # noqa: E731
        async with logged_in(tmp_path, factory) as (server, _):
            (connection,) = server.connections
            session = connection.session_requested()
            assert isinstance(session, ConsoleSession)
            assert session.key.name == signer

    asyncio.run(scenario())


@pytest.mark.parametrize("is_reading", [False, True])
def test_a_client_that_takes_no_answers_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_reading: bool
) -> None:
    """One does not read. The other one begins a key exchange, which defers all answers, and does not complete it."""
    monkeypatch.setattr(f"{SERVER}.MAX_UNSENT_BYTES", 2**18)

    async def scenario() -> None:
        async with logged_in(tmp_path) as (server, client):
            if is_reading:
                client.send_packet(MSG_KEXINIT, bytes(16), *([NameList([])] * 10), Boolean(False), UInt32(0))
            else:
                (connection,) = server.connections
                for end, option in ((client, socket.SO_RCVBUF), (connection._connection, socket.SO_SNDBUF)):
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 4_096)
                assert client._transport is not None
                client._transport.pause_reading()
            request = String("none"), Boolean(True)
            while server.connections:
                for _ in range(100):
                    client.send_packet(MSG_GLOBAL_REQUEST, *request)
                await asyncio.sleep(0.001)

    asyncio.run(scenario())


def test_the_variables_of_a_session_are_limited(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with logged_in(tmp_path) as (server, client):
            channel = SSHClientChannel(client, asyncio.get_running_loop(), "strict", None, "strict", 65_536, 32_768)
            await channel._open(b"session")
            for number in range(10):
                value = String(bytes(MAX_VARIABLES_BYTES // 10 - 1))
                assert await channel._make_request(b"env", String(str(number)), value)
            server._limit_memory(next(iter(server.connections)))
            await asyncio.sleep(0)
            assert server.connections
            channel._send_request(b"env", String("one more"), String(b""))
            await wait_until(lambda: not server.connections)

    asyncio.run(scenario())


@pytest.mark.parametrize("algorithm", ["rsa2048-sha256", "diffie-hellman-group18-sha512"])
def test_expensive_key_exchanges_are_refused(tmp_path: Path, algorithm: str) -> None:
    async def scenario() -> None:
        async with logged_in(tmp_path) as (server, _):
            options = {"known_hosts": None, "client_keys": None, "config": None, "kex_algs": [algorithm]}
            with pytest.raises(asyncssh.KeyExchangeFailed):
                await _connect(server.settings.port, options)

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
