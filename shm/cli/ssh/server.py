"""The SSH server: logins by public key, and one console for each session. Everything else is refused.

No address and no user name is logged: asyncssh's logger is disabled (`shm.core.logs`), and a client's user name is not
used. Log lines name the token of a key, as the audit trail does.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import asyncssh
from asyncssh.constants import DISC_BY_APPLICATION, OPEN_RESOURCE_SHORTAGE

from shm.cli.ssh.authorized_keys import AuthorizedKey, AuthorizedKeys, encode_public_key
from shm.cli.ssh.session import END_TIMEOUT_S, ConsoleSession
from shm.core.errors import ConfigurationError
from shm.core.logs import rate_limited
from shm.core.settings import SshSettings
from shm.core.tasks import run_in_background

# Connections before their login. A further one replaces the oldest one, so that their memory is bounded. A flood can
# delay logins.
MAX_LOGINS = 20
MAX_OFFERED_KEYS = 20  # of one connection; an agent offers all of its keys
CHECK_INTERVAL_S = 1.0  # of the time limits and of removed keys
KEEPALIVE_S, MAX_LOST_KEEPALIVES = 15, 3  # as the feed: a client that is gone is noticed within a minute
CLIENT_CLOSE_TIMEOUT_S = 2.0  # for a client at the end of the server
WINDOW_BYTES = 65_536  # input that a client may send before it is read: keys and what is pasted
# Output and answers that wait for a client. OpenSSH's client permits 2 MiB that it has not read. asyncssh has no limit
# for a client that permits more and does not read, or that does not complete a key exchange.
MAX_UNSENT_BYTES = 4 * 2**20
DEFERRED_PACKET_BYTES = 128  # of memory, besides the content
MAX_VARIABLES_BYTES = 65_536  # of a session; asyncssh keeps all that a client sends. A whole environment has a few kB
# Each costs a stranger's connection some milliseconds of the server's only thread, these ones up to 20 times more.
REFUSED_KEY_EXCHANGES = "-diffie-hellman-*,rsa2048-*"
VERSION = "SHM"  # what strangers learn of the software

IDLE = "the session ended because no key was pressed for {:,.0f} seconds"
KEY_REMOVED = "the session ended because its key is no longer authorized"
KEYS_UNREADABLE = "the session ended because the server cannot read its authorized keys"
STOPPED = "the session ended because the server was stopped"

KEYS_FAULT = "no login is possible, and open consoles end"
FLOODED = "an SSH connection was closed"

logger = logging.getLogger(__name__)


class SshServer:
    """Accepts connections, within the limits of the settings."""

    def __init__(self, settings: SshSettings, keys: AuthorizedKeys, host_key: asyncssh.SSHKey) -> None:
        self.settings = settings
        self.logins: dict[Connection, None] = {}  # the oldest first
        self.connections: set[Connection] = set()  # after the login
        self._sessions: dict[ConsoleSession, Connection] = {}
        self._keys = keys
        self._host_key = host_key

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then ends all consoles. Raises ConfigurationError if it cannot listen."""
        try:
            acceptor = await self._listen()
        except OSError as error:
            raise ConfigurationError(
                f"Cannot listen on {self.settings.host}, port {self.settings.port}: {error.strerror}. Choose others "
                "with --host and --port."
            ) from None
        try:
            async with run_in_background(self._check_limits()):
                logger.info("consoles are served by SSH on %s, port %d", self.settings.host, acceptor.get_port())
                await stop.wait()
        finally:
            acceptor.close()
            await self._end_all()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        """Listens. Each option that would permit anything but a console is named, whatever asyncssh's default is."""
        return await asyncssh.listen(
            self.settings.host,
            self.settings.port,
            server_factory=lambda: Connection(self),
            server_host_keys=[self._host_key],
            config=None,
            server_version=VERSION,
            public_key_auth=True,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_kex=False,
            gss_auth=False,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_scp=False,
            sftp_factory=None,
            line_editor=False,
            rdns_lookup=False,
            kex_algs=REFUSED_KEY_EXCHANGES,
            compression_algs=["none"],
            login_timeout=self.settings.login_timeout.total_seconds(),
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=MAX_LOST_KEEPALIVES,
            window=WINDOW_BYTES,
            encoding=None,
        )

    def find_key(self, public_key: str) -> AuthorizedKey | None:
        """The authorized key; None also while the file cannot be read, which is logged."""
        try:
            return self._keys.find(public_key)
        except ConfigurationError as error:
            rate_limited.warning(KEYS_FAULT, str(error))
            return None

    def open_session(self, connection: "Connection", key: AuthorizedKey) -> ConsoleSession:
        """A new session of a connection. Raises ChannelOpenError at a limit, with a sentence that the client shows."""
        of_key = sum(session.key.token_id == key.token_id for session in self._sessions)
        if of_key >= self.settings.max_sessions_per_key:
            raise asyncssh.ChannelOpenError(
                OPEN_RESOURCE_SHORTAGE, f"the maximum of {of_key} consoles of this key is open"
            )
        if len(self._sessions) >= self.settings.max_sessions:
            raise asyncssh.ChannelOpenError(
                OPEN_RESOURCE_SHORTAGE, f"the maximum of {len(self._sessions)} consoles is open; try again later"
            )
        session = ConsoleSession(key, self.settings.server, self._forget_session)
        self._sessions[session] = connection
        return session

    def _forget_session(self, session: ConsoleSession) -> None:
        self._sessions.pop(session, None)

    def forget_connection(self, connection: "Connection") -> None:
        """Frees the places of a connection that has ended, but for consoles that still run.

        Of a session whose connection ended before its channel was open, asyncssh calls no method.
        """
        self.logins.pop(connection, None)
        self.connections.discard(connection)
        for session, of in list(self._sessions.items()):
            if of is connection and session.task is None:
                self._forget_session(session)

    def has_session(self, connection: "Connection") -> bool:
        """Whether a console of this connection is open."""
        return connection in self._sessions.values()

    async def _check_limits(self) -> None:
        """Ends idle consoles, those of removed keys, and connections without a console or with too much memory."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            for connection in [*self.logins, *self.connections]:
                with _logged_fault():
                    self._limit_memory(connection)
            for session in list(self._sessions):
                with _logged_fault():
                    if (reason := self._reason_to_end(session)) is not None:
                        session.end(reason)
            for connection in list(self.connections):
                with _logged_fault():
                    connection.close_if_unused()

    def _limit_memory(self, connection: "Connection") -> None:
        """Closes a connection whose client makes the server keep too much for it."""
        variables = sum(session.variables_bytes for session, of in self._sessions.items() if of is connection)
        if connection.unsent_bytes > MAX_UNSENT_BYTES:
            rate_limited.warning(
                FLOODED, f"its client does not read, and {connection.unsent_bytes:,} bytes wait for it"
            )
            connection.abort()
        elif variables > MAX_VARIABLES_BYTES:
            rate_limited.warning(FLOODED, f"its client has sent {variables:,} bytes of variables")
            connection.abort()

    def _reason_to_end(self, session: ConsoleSession) -> str | None:
        """Why a session may not go on: a sentence for its user."""
        try:
            key = self._keys.find(session.key.public_key)
        except ConfigurationError as error:
            rate_limited.warning(KEYS_FAULT, str(error))
            return KEYS_UNREADABLE
        if key != session.key:
            return KEY_REMOVED
        idle_timeout = self.settings.idle_timeout.total_seconds()
        return IDLE.format(idle_timeout) if monotonic() - session.last_input > idle_timeout else None

    async def _end_all(self) -> None:
        for login in list(self.logins):
            login.abort()
        for session in list(self._sessions):
            with _logged_fault():
                session.end(STOPPED)
        tasks = [session.task for session in self._sessions if session.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=2 * END_TIMEOUT_S)
        await asyncio.gather(*(connection.close() for connection in list(self.connections)))


@contextmanager
def _logged_fault() -> Iterator[None]:
    """A fault of one session or connection is logged and does not keep the others."""
    try:
        yield
    except Exception as error:
        rate_limited.exception("an SSH session could not be ended", error)


class Connection(asyncssh.SSHServer):
    """A connection of a client. asyncssh refuses requests that this class has no method for, such as forwarding."""

    _connection: asyncssh.SSHServerConnection  # from the first callback on

    def __init__(self, server: SshServer) -> None:
        self._server = server
        self._key: AuthorizedKey | None = None  # the last one that was asked for; after the login, the verified one
        self._key_requests = 0
        self._used_at = monotonic()  # when it last had a session, or its login

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Called by asyncssh for a new connection."""
        self._connection = conn
        logins = self._server.logins
        if len(logins) >= MAX_LOGINS:
            next(iter(logins)).abort()
        logins[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncssh at the end of the connection."""
        self._server.forget_connection(self)
        if exc is not None and not isinstance(exc, OSError | asyncssh.Error):
            rate_limited.exception("an SSH connection ended by a fault", exc)

    def begin_auth(self, username: str) -> bool:
        """Every user name needs a key, and all of them are the same."""
        return True

    def public_key_auth_supported(self) -> bool:
        """The only way to log in."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether a key is authorized. A client asks for each of its keys, and then logs in with one that it can use.

        With a signature, asyncssh calls this for the key that signed, verifies the signature, and completes the login,
        all within one step of the event loop. So `auth_completed` finds the verified key here, in whatever order a
        client asks and signs.
        """
        self._key = None
        self._key_requests += 1
        if self._key_requests > MAX_OFFERED_KEYS + 1:  # one more: the last key's signature is a request too
            self.abort()
            return False
        self._key = self._server.find_key(encode_public_key(key))
        return self._key is not None

    def auth_completed(self) -> None:
        """Called by asyncssh after the login."""
        self._server.logins.pop(self, None)
        self._server.connections.add(self)
        self._used_at = monotonic()

    def session_requested(self) -> ConsoleSession | bool:
        """Opens a console, within the limits."""
        if self._key is None:
            return False
        return self._server.open_session(self, self._key)

    @property
    def unsent_bytes(self) -> int:
        """The memory of what waits for the client: in the transport, and until the end of a key exchange."""
        transport, deferred = self._connection._transport, self._connection._deferred_packets
        deferred_bytes = sum(DEFERRED_PACKET_BYTES + sum(map(len, parts)) for _, parts in deferred)
        return deferred_bytes + (transport.get_write_buffer_size() if transport is not None else 0)

    def close_if_unused(self) -> None:
        """Closes a connection that had no console for the time of a login: it may not wait for ever."""
        if self._server.has_session(self):
            self._used_at = monotonic()
        elif monotonic() - self._used_at > self._server.settings.login_timeout.total_seconds():
            self._connection.disconnect(DISC_BY_APPLICATION, "no console was opened")

    def abort(self) -> None:
        """Closes the connection at once, after the callback that asyncssh may be in."""
        self._server.logins.pop(self, None)
        asyncio.get_running_loop().call_soon(self._connection.abort)

    async def close(self) -> None:
        """Waits until the client closes the connection, as it does after its last session; then closes it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._connection.wait_closed(), CLIENT_CLOSE_TIMEOUT_S)
            return
        self._connection.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._connection.wait_closed(), CLIENT_CLOSE_TIMEOUT_S)
            return
        self._connection.abort()
