"""The request in docs/privacy.md has the fields and the system metrics of a request that the SDK sends."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.scripted_server import run_scripted_server

GUIDE = (Path(__file__).parents[2] / "docs/privacy.md").read_text(encoding="utf-8")
PROGRAM = """
import shm_sdk

telemetry = shm_sdk.Client({url!r}, "Ledger", "1.4.2", environment="production")
telemetry.provider(lambda: {{"invoices_sent": 1284, "users_active": 37}})
print(telemetry.report_now().sent)
"""


def test_the_documented_request_has_the_fields_that_the_sdk_sends(tmp_path: Path) -> None:
    (example,) = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)]
    with run_scripted_server() as server:
        subprocess.run(
            [sys.executable, "-c", PROGRAM.format(url=server.url)],
            env={**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
            timeout=60,
            check=True,
        )
        sent = server.wait_for("/v1/snapshot").json
    assert sent.keys() == example.keys()
    metrics = sent["metrics"]
    assert isinstance(metrics, dict)
    with_psutil = set(re.findall(r"`((?:sys|app)_\w+)`", GUIDE))
    assert metrics.keys() - with_psutil == example["metrics"].keys()
    assert with_psutil == {"app_cpu_pct", "app_threads", "sys_mem_total_mb"}
