"""Host processes in the environment of the bench, and what they cost."""

import json
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.sdk.measured_sdks import MeasuredSdk
from bench.support.errors import InvalidRun

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300

# Prints the cost of the statements: seconds of CPU, and resident MiB.
MEASURE = """
import json, sys, time
{host}
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * {page} / 2**20
before = time.process_time(), resident()
{statements}
after = time.process_time(), resident()
print(json.dumps([b - a for a, b in zip(before, after)]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds and MiB."""

    cpu_ms: float
    resident_mib: float


class Hosts:
    """Runs host processes with the interpreter of the environment. `python` is its path."""

    def __init__(self, python: Path, url: str) -> None:
        self._python = python
        self._url = url

    def measure(self, sdk: MeasuredSdk, statements: str, host: str = "", *, url: str | None = None) -> Cost:
        """The cost of statements in a process that has run those of `host` before."""
        program = MEASURE.format(host=host, statements=statements, page=os.sysconf("SC_PAGE_SIZE"))
        cpu_s, resident_mib = json.loads(self._run(self._fill(program, sdk, url or self._url)))
        return Cost(cpu_s * 1e3, resident_mib)

    def measure_process(self, sdk: MeasuredSdk, program: str) -> float:
        """The CPU milliseconds of a whole process. Imports wait for nothing, so an idle machine takes as long."""
        before = _children_cpu_s()
        self._run(self._fill(program, sdk, self._url))
        return (_children_cpu_s() - before) * 1e3

    def time_exit(self, sdk: MeasuredSdk, statements: str, end: str, url: str) -> float:
        """Milliseconds from the end of `statements` until the process has ended, after the statements of `end`."""
        program = f"import time, {sdk.module}\n{statements}\nprint(time.time(), flush=True)\n{end}"
        ended_at = float(self._run(self._fill(program, sdk, url)))
        return (time.time() - ended_at) * 1e3

    def _fill(self, program: str, sdk: MeasuredSdk, url: str) -> str:
        address = urlsplit(url)
        dsn = f"{address.scheme}://key@{address.netloc}/1"
        data = tempfile.mkdtemp(prefix=f"{sdk.module}-", dir=os.environ["TMPDIR"])
        return program.replace("{url}", url).replace("{dsn}", dsn).replace("{data}", data)

    def _run(self, program: str) -> str:
        hidden = ("SHM_", "SENTRY_", "POSTHOG_", "PYTHON", "DO_NOT_TRACK", "http_proxy", "HTTP_PROXY", "all_proxy")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        done = subprocess.run(
            [str(self._python), "-c", program],
            env={**environment, "PYTHONPATH": str(ROOT / "sdk")},
            cwd=os.environ["TMPDIR"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0:
            raise InvalidRun(f"a host failed: {done.stderr.strip().splitlines()[-1:]}")
        return done.stdout


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
