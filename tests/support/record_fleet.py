"""Records a server's answers to the console: `python -m tests.support.record_fleet URL TOKEN_FILE FILE`.

The places are those of the pictures; of an empty server, the first screen alone.
"""

import asyncio
import sys
from pathlib import Path

import httpx

from tests.support.console_pictures import PLACES, SIZES, open_picture, settle
from tests.support.recorded_api import WRONG_TOKEN, Recording, as_answer

SETTLED_S = 3.0


async def _record(url: str, token: str, file: Path) -> None:
    recording = Recording()
    async with httpx.AsyncClient(base_url=url) as client:
        headers = {"Authorization": f"Bearer {token}"}
        is_empty = not (await client.get("/api/v1/admin/applications", headers=headers)).raise_for_status().json()
        refused = await client.get("/api/v1/admin/stats", headers={"Authorization": f"Bearer {WRONG_TOKEN}"})
    recording.refusal = as_answer(refused)
    for place in [""] if is_empty else PLACES.values():
        for size in SIZES:
            async with open_picture(recording, place, size, upstream=url, token=token) as app:
                await settle(app, SETTLED_S)
    recording.save(file)
    print(f"{len(recording.answers)} answers, {file.stat().st_size} bytes")


if __name__ == "__main__":
    asyncio.run(_record(sys.argv[1], Path(sys.argv[2]).read_text().strip(), Path(sys.argv[3])))
