"""The search for instances of all applications in the command palette."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Protocol, cast

from textual.command import Hit, Hits, Provider
from textual.content import Content

from shm_client import ClientError
from shm_tui.model.live_session import LiveSession
from shm_tui.model.place import Place

MIN_SEARCHED_CHARS = 3  # fewer are in nearly every instance
MAX_FOUND = 10  # instances
SEARCH_DELAY_S = 0.25  # without another character: a request for each would cost the server as many scans
FOUND_SCORE = 0.1  # below actions and applications


class PlaceApp(Protocol):
    """The app: it has a session and a place, and goes to another one."""

    @property
    def session(self) -> LiveSession:
        """The live instances of the place's application."""

    @property
    def place(self) -> Place:
        """The place that is shown."""

    def go(self, place: Place) -> None:
        """Shows a place."""


class InstanceSearch(Provider):
    """The entries of the palette that are instances: those that have the text of the query."""

    async def search(self, query: str) -> Hits:
        """Requests the instances once the query has not changed for a moment; the palette cancels older searches."""
        app = cast(PlaceApp, self.app)
        if len(query) < MIN_SEARCHED_CHARS:
            return
        await asyncio.sleep(SEARCH_DELAY_S)
        with suppress(ClientError):  # the top line shows that the server is away
            for instance in await app.session.client.find_instances(query, MAX_FOUND):
                place = Place(instance.app_slug, "instance", (instance.instance_id,), range=app.place.range)
                text = f"{instance.instance_id}  {instance.app_name} {instance.app_version}"
                help_text = " ".join(each for each in (instance.environment, instance.status) if each)
                yield Hit(FOUND_SCORE, Content(text), partial(app.go, place), text=text, help=help_text)
