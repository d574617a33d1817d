"""`counted` of an instance says what the headline counts, also where only time has passed."""

import asyncio
from collections.abc import Callable

from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.subscriber import subscribe

WINDOW_S = 4


async def test_an_instance_that_falls_silent_is_sent_as_not_counted(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_ACTIVE_WINDOW=f"{WINDOW_S}s")
    install = Install(server.url).enroll({"n": 1})
    async with subscribe(server, "?since=0") as subscriber:
        counted = [(await subscriber.until("instance"))["instance"]["counted"]]
        while counted[-1]:
            counted.append((await subscriber.until("instance"))["instance"]["counted"])
        assert counted[0]
    listed = server.get(f"instances/{install.instance_id}").json()
    assert (listed["status"], listed["counted"]) == ("active", False)
    assert server.get("applications/ledger").json()["instances"]["counted"] == 0
    await asyncio.to_thread(install.snapshot, {"n": 2})
    assert server.get(f"instances/{install.instance_id}").json()["counted"]


def test_lists_count_as_the_headline_does(server: ServerProcess) -> None:
    Install(server.url).enroll({"n": 1})
    Install(server.url, environment="ci").enroll({"n": 1})
    Install(server.url).enroll({"sys_ephemeral": True})
    Install(server.url).register()
    order = [item["counted"] for item in server.get("instances?sort=counted&order=desc").json()]
    assert order == [True, False, False, False]
    assert sum(order) == server.get("stats").json()["counted_instances"]
