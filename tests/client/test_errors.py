"""What the client says about a server that it cannot reach."""

import pytest
from tornado.testing import bind_unused_port

from shm_client import Client, ServerUnavailableError


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_failed_connection_is_said_in_words(host: str) -> None:
    """Of requests and of the feed, without a library's calls and addresses; `localhost` has several of those."""
    socket, port = bind_unused_port()
    socket.close()
    url = f"http://{host}:{port}"
    async with Client(url, "token") as client:
        with pytest.raises(ServerUnavailableError) as caught:
            await client.stats()
        assert str(caught.value) == f"no answer from {url}: Connection refused"
        with pytest.raises(ServerUnavailableError) as caught:
            async with client.open_messages(None, 0):
                pass
        assert str(caught.value) == f"no feed from {url}: Connection refused"
