"""The search over applications and instances, in the fleet and in the palette."""

from tests.support.console import open_console
from tests.support.installs import Install
from tests.support.server_process import ServerProcess


async def test_the_fleet_and_the_palette_find_instances_of_all_applications(server: ServerProcess) -> None:
    Install(server.url).enroll({"sent": 1})
    wanted = Install(server.url, app_name="Kiosk", app_version="7.7.7-[red]").enroll({"plays": 1})
    async with open_console(server, "ledger", place="fleet") as console:
        await console.wait_for_text("2 applications")
        await console.enter("7.7.7", "slash")
        await console.wait_for_text("INSTANCES with /7.7.7", wanted.instance_id, "7.7.7-[red]")
        await console.pilot.press("G", "enter")
        await console.wait_for_text("last seen")
        place = console.app.place
        assert (place.app, place.view, place.arguments) == ("kiosk", "instance", (wanted.instance_id,))
        await console.pilot.press("F", "ctrl+p", *wanted.instance_id[:6])
        await console.wait_for_text(f"{wanted.instance_id}  Kiosk 7.7.7-[red]")
        await console.pilot.press("enter")
        await console.wait_until(lambda: console.app.place.view == "instance")
        assert console.app.place.app == "kiosk"
        await console.enter("nothing-has-this", "F", "slash")
        await console.wait_for_text("No application matches  /nothing-has-this")
