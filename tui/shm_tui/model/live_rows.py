"""The rows of a live list: their store, the server that they come from, and which of them the feed keeps up to date."""

from collections.abc import Callable
from dataclasses import dataclass, field

from shm_client import Client
from shm_tui.model.row_store import RowStore


@dataclass(frozen=True, slots=True)
class LiveRows:
    """The rows of the instances of one application (`slug`), or of all (None).

    The feed, the matches of a filter and a window each put rows into the store. `feed_ids` are the instances that the
    feed updates and removes. `on_change` is called after every change.
    """

    client: Client
    slug: str | None
    store: RowStore
    on_change: Callable[[], None]
    feed_ids: set[str] = field(default_factory=set)

    def release(self, instance_ids: set[str]) -> None:
        """Removes rows that matches or a window no longer need, unless the feed keeps them up to date."""
        for instance_id in instance_ids - self.feed_ids:
            self.store.remove(instance_id)
