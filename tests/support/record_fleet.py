"""Records a server's answers to the console: `python -m tests.support.record_fleet URL TOKEN_FILE FILE`."""

import asyncio
import sys
from pathlib import Path

from tests.support.console_pictures import PLACES, SIZES, open_picture, settle
from tests.support.recorded_api import Recording

SETTLED_S = 3.0


async def _record(url: str, token: str, file: Path) -> None:
    recording = Recording()
    for place in PLACES.values():
        for size in SIZES:
            async with open_picture(recording, place, size, upstream=url, token=token) as app:
                await settle(app, SETTLED_S)
    recording.save(file)
    print(f"{len(recording.answers)} answers, {file.stat().st_size} bytes")


if __name__ == "__main__":
    asyncio.run(_record(sys.argv[1], Path(sys.argv[2]).read_text().strip(), Path(sys.argv[3])))
