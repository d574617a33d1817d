"""What installs send: register, activate, snapshot. Bodies are read only up to their limit."""

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from http import HTTPStatus

import tornado.web

from shm import envelope
from shm.errors import Conflict, Forbidden, TooLarge
from shm.handlers.base import Handler, Rooms
from shm.registry import Registered, unknown_instance
from shm.tokens import Role


@tornado.web.stream_request_body
class FromInstall(Handler, ABC):
    """A POST with a bounded body. Streamed, so that an oversized one is refused before it is read.

    It is in flight once its body is there: whoever sends slowly or goes away in the middle holds up no drain.
    """

    role = Role.INSTALL

    def initialize(self, rooms: Rooms) -> None:
        super().initialize(rooms)
        self._body = bytearray()
        self._over = False

    async def prepare(self) -> None:
        await self.admit()
        announced = self.request.headers.get("Content-Length", "0")
        if announced.isascii() and announced.isdecimal() and int(announced) > self.rooms.settings.max_body:
            raise self._too_large()

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk
        if len(self._body) > self.rooms.settings.max_body:  # chunked; what follows is read and dropped, up to a bound
            self._over = True
            self._body.clear()

    async def post(self) -> None:
        self.count()
        if self._over:
            raise self._too_large()
        await self.accept(bytes(self._body))

    @abstractmethod
    async def accept(self, body: bytes) -> None:
        """Does what is asked; `body` is the exact bytes that came."""

    def proof(self) -> envelope.Proof:
        """Who says to have signed this."""
        headers = self.request.headers
        return envelope.proof(headers.get("X-Instance-ID"), headers.get("X-Signature"))

    def _too_large(self) -> TooLarge:
        sentence = f"The body is larger than {self.rooms.settings.max_body} bytes."
        return TooLarge("body_too_large", sentence, {"Connection": "close"})


class Register(FromInstall):
    """`POST /v1/register`: unsigned, or signed with the key that it carries."""

    async def accept(self, body: bytes) -> None:
        said = envelope.registration(body)
        signed = "X-Signature" in self.request.headers
        if signed:
            claimed = self.proof()
            if claimed.instance_id != said.instance_id:
                raise Forbidden("instance_mismatch", "instance_id in the body is not the one in X-Instance-ID.")
            envelope.verify(said.public_key, claimed.signature, body)
        verdict = await self.rooms.registry.register(said)
        if verdict is Registered.CONFLICT:
            raise Conflict("key_conflict", "This instance_id is registered with another public key.")
        if verdict is Registered.REVOKED:
            raise unknown_instance()
        if signed:
            await self.rooms.registry.prove(said.instance_id, said.public_key)
        status = HTTPStatus.CREATED if verdict is Registered.NEW else HTTPStatus.OK
        self.answer({"status": "ok", "message": "Registered"}, status)


class Activate(FromInstall):
    """`POST /v1/activate`: proves the key of a registered instance, again and again."""

    async def accept(self, body: bytes) -> None:
        claimed = self.proof()
        public_key = await self.rooms.registry.public_key(claimed.instance_id)
        envelope.verify(public_key, claimed.signature, body)
        envelope.action(body)
        self.answer({"status": await self.rooms.registry.prove(claimed.instance_id, public_key)})


class Snapshot(FromInstall):
    """`POST /v1/snapshot`: 202 once it is committed."""

    async def accept(self, body: bytes) -> None:
        claimed = self.proof()
        public_key = await self.rooms.registry.public_key(claimed.instance_id)
        now = datetime.now(UTC)
        await self.rooms.intake.store(envelope.snapshot(claimed, public_key, body, now, self.rooms.settings))
        self.answer({"status": "ok", "message": "Snapshot received"}, HTTPStatus.ACCEPTED)
