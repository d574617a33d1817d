"""The client at the top of docs/protocol.md, run on a real server, prints the answers that stand below it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.server_process import ServerProcess

GUIDE = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")


def test_the_smallest_client_gets_the_documented_answers(server: ServerProcess) -> None:
    found = re.match(r".*?^```python\n(.*?)^```\n+^```\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert found
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-c", found[1]],
        env={**os.environ, "SHM_SERVER": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert printed == found[2]
