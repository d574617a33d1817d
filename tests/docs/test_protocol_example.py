"""The example client of docs/protocol.md prints the documented responses of a real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.server_process import ServerProcess

GUIDE = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")


def test_the_example_client_gets_the_documented_responses(server: ServerProcess) -> None:
    example = re.match(r".*?^```python\n(.*?)^```\n+^```\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert example
    output = subprocess.run(
        [sys.executable, "-W", "error", "-c", example[1]],
        env={**os.environ, "SHM_SERVER": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert output == example[2]
