"""The output of a session whose client does not read."""

import asyncio
import os
import pty
import subprocess
from datetime import UTC, datetime

import asyncssh

from shm.cli.ssh.authorized_keys import AuthorizedKey
from shm.cli.ssh.session import ConsoleSession
from shm.cli.ssh.terminal_bridge import CHUNK_BYTES, TerminalBridge

LIMIT_S = 60
OUTPUT_BYTES = 64 * 2**20
MAX_BUFFER_BYTES = 4 * CHUNK_BYTES
TURNS = 2_000  # of the event loop; without a limit, each would copy a chunk


class FloodedSession(ConsoleSession):
    """A session in which another program than the console writes as fast as it can."""

    def __init__(self) -> None:
        super().__init__(AuthorizedKey("Ana", "", "token-id", "", datetime.now(UTC)), "", lambda _: None)
        self.paused = asyncio.Event()
        self.lost = asyncio.Event()

    @property
    def buffered(self) -> int:
        """Bytes that wait for the client."""
        return self._channel.get_write_buffer_size()

    def session_started(self) -> None:
        self.terminal, slave = pty.openpty()
        os.set_blocking(self.terminal, False)
        self.writer = subprocess.Popen(["head", "-c", str(OUTPUT_BYTES), "/dev/zero"], stdout=slave)
        os.close(slave)
        self._bridge = TerminalBridge(self._channel, self.terminal)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.paused.set()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._bridge is not None
        self._bridge.close()
        os.close(self.terminal)
        self.writer.kill()
        self.writer.wait()
        self.lost.set()


class Server(asyncssh.SSHServer):
    """A server without a login, for one session."""

    def __init__(self, session: FloodedSession) -> None:
        self.session = session

    def begin_auth(self, username: str) -> bool:
        return False

    def session_requested(self) -> FloodedSession:
        return self.session


def test_a_client_that_does_not_read_costs_a_bounded_buffer() -> None:
    async def scenario() -> None:
        session = FloodedSession()
        acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: Server(session),
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            encoding=None,
            line_editor=False,
        )
        async with acceptor, asyncio.timeout(LIMIT_S):
            client = await asyncssh.connect(
                "127.0.0.1", acceptor.get_port(), username="any", known_hosts=None, config=None, client_keys=None
            )
            channel, _ = await client.create_session(asyncssh.SSHClientSession, term_type="xterm", encoding=None)
            channel.pause_reading()
            await session.paused.wait()
            for _ in range(TURNS):
                await asyncio.sleep(0)
                assert session.buffered < MAX_BUFFER_BYTES
            assert session.writer.poll() is None  # it waits for its terminal
            client.abort()
            await session.lost.wait()

    asyncio.run(scenario())
