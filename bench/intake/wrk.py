"""wrk, the compiled client that sends; it runs `replay.lua`, and must never be what limits a figure.

p50 and p99 are wrk's: from the first byte of a request written to its answer read. Where an answer took more than twice
the usual time, wrk counts the requests too that would have been sent meanwhile.
"""

import json
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.support.errors import Fault
from bench.support.fleet import Requests

SCRIPT = Path(__file__).parent / "replay.lua"
THREADS = 2  # each sends tens of thousands of requests a second; two keep apart what a noisy core does to one
PATIENCE_S = 30  # an answer that took longer is counted as failed
HOW_TO_GET_IT = "The bench sends with wrk, which is not installed; on Debian and Ubuntu: apt install wrk"


@dataclass(frozen=True, slots=True)
class Run:
    """What became of the requests of one run."""

    seconds: float
    sent: int
    ran_out: int
    failures: int
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]
    driver_cpu: float  # cores

    @property
    def acknowledged(self) -> int:
        """How many were answered 202."""
        return self.statuses.get("202", 0)

    @property
    def not_2xx(self) -> int:
        """How many were answered otherwise."""
        return sum(count for status, count in self.statuses.items() if not status.startswith("2"))

    @property
    def rate(self) -> float:
        """Acknowledged a second."""
        return self.acknowledged / self.seconds


def threads(connections: int) -> int:
    """With how many threads wrk holds so many connections; requests are signed in as many parts."""
    return 1 if connections % THREADS else THREADS  # wrk would leave out what cannot be shared evenly


def is_there() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def drive(url: str, requests: Requests, connections: int, seconds: int, pause_ms: float = 0.0) -> Run:
    """Sends for so long. Raises Fault where an answer was none of 2xx, or the requests did not last."""
    before = _cpu_of_children()
    done = subprocess.run(
        [
            *("wrk", "--threads", str(threads(connections)), "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--timeout", f"{PATIENCE_S}s", "--script", str(SCRIPT)),
            *(f"{url}/v1/snapshot", "--", str(requests.path), f"{pause_ms:.3f}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Fault(f"wrk ended with the status {done.returncode}: {done.stderr.strip()}")
    cpu_s = _cpu_of_children() - before
    said = json.loads(done.stdout.strip().splitlines()[-1])
    run = Run(**said, driver_cpu=cpu_s / said["seconds"])
    _refuse_untrue(run, connections, seconds)
    return run


def _refuse_untrue(run: Run, connections: int, seconds: int) -> None:
    if run.not_2xx or run.failures:
        raise Fault(f"Of {run.sent} requests not all were answered 2xx: {run.statuses}, {run.failures} had no answer.")
    if run.sent - run.acknowledged > connections:  # wrk says nothing of a connection that was closed on it
        raise Fault(
            f"Of {run.sent} requests {run.acknowledged} were answered; on each connection one may be under way."
        )
    if run.ran_out:
        raise Fault(f"The {run.sent} requests that were signed did not last {seconds} s.")


def _cpu_of_children() -> float:
    """Seconds of processor time of the processes that have ended: here only wrk does so while it is measured."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
