"""wrk, a compiled HTTP client that runs `replay.lua`. It must never be the bottleneck of a measurement.

p50 and p99 are wrk's: from the first byte of a request written to its response read. Where a response took more than
twice the usual time, wrk also counts the requests that would have been sent meanwhile.
"""

import json
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.support.errors import InvalidRun
from bench.support.fleet import SignedRequests

SCRIPT = Path(__file__).parent / "replay.lua"
MAX_THREADS = 2  # one thread sends tens of thousands of requests a second; two even out a noisy core
RESPONSE_TIMEOUT_S = 30  # a later response counts as failed
INSTALL_HINT = "The bench sends with wrk, which is not installed; on Debian and Ubuntu: apt install wrk"


@dataclass(frozen=True, slots=True)
class WrkRun:
    """The result of one run."""

    seconds: float
    sent: int
    exhausted: int  # threads that had no signed request left
    failures: int
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]
    wrk_cores: float

    @property
    def acknowledged(self) -> int:
        """Responses with 2xx."""
        return sum(count for status, count in self.statuses.items() if status.startswith("2"))

    @property
    def not_2xx(self) -> int:
        """Responses with any other status class."""
        return sum(self.statuses.values()) - self.acknowledged

    @property
    def rate(self) -> float:
        """Acknowledged requests a second."""
        return self.acknowledged / self.seconds


def thread_count(connections: int) -> int:
    """wrk's threads for that many connections; requests are signed in as many parts."""
    return 1 if connections % MAX_THREADS else MAX_THREADS  # wrk drops connections that do not divide evenly


def is_installed() -> bool:
    """Whether wrk is on the PATH."""
    return shutil.which("wrk") is not None


def run_wrk(url: str, requests: SignedRequests, connections: int, seconds: int, pause_ms: float = 0.0) -> WrkRun:
    """Sends for that long. Raises InvalidRun if a response was not 2xx or the requests were exhausted."""
    cpu_before = _children_cpu_seconds()
    completed = subprocess.run(
        [
            *("wrk", "--threads", str(thread_count(connections)), "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--timeout", f"{RESPONSE_TIMEOUT_S}s", "--script", str(SCRIPT)),
            *(url, "--", str(requests.path), f"{pause_ms:.3f}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        raise InvalidRun(f"wrk ended with status {completed.returncode}: {completed.stderr.strip()}")
    cpu_seconds = _children_cpu_seconds() - cpu_before
    result = json.loads(completed.stdout.strip().splitlines()[-1])
    run = WrkRun(**result, wrk_cores=cpu_seconds / result["seconds"])
    _validate(run, connections, seconds)
    return run


def _validate(run: WrkRun, connections: int, seconds: int) -> None:
    if run.not_2xx or run.failures:
        raise InvalidRun(f"Of {run.sent} requests not all got a 2xx: {run.statuses}, {run.failures} had no response.")
    if run.sent - run.acknowledged > connections:  # wrk does not report a connection that the server closed
        raise InvalidRun(
            f"Of {run.sent} requests {run.acknowledged} got a response; at most one a connection may be in flight."
        )
    if run.exhausted:
        raise InvalidRun(f"The {run.sent} signed requests were exhausted before {seconds} s.")


def _children_cpu_seconds() -> float:
    """CPU time of the child processes that have ended; only wrk ends during a measurement."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
