"""The fleet, in a separate process: `python -m shm.cli.demo.fleet`. Every install is an SDK client.

Each install reports once; then random installs report at `--rate`, until SIGTERM.
"""

import argparse
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from shm.cli.demo.applications import Application, Persona, make_installs
from shm_sdk import Client

SENDER_THREADS = 8  # a report takes some milliseconds, most of them in the server
MAX_WAITING_REPORTS = 64  # that are queued; then the fleet waits, which bounds its memory


class SimulatedInstall:
    """An install of an application, with its own identity."""

    def __init__(
        self, application: Application, persona: Persona, server: str, folder: Path, started_at: float
    ) -> None:
        self._client = Client(
            server,
            application.name,
            application.version(persona, time.time(), started_at),
            data_dir=persona.directory(folder),
            environment=persona.environment,
            deployment_mode=persona.deployment_mode,
            os_arch=persona.os_arch,
            collect_system_metrics=False,  # these would describe this machine, not the simulated one
        )
        self._client.provider(lambda: application.report(persona, time.time()))

    def report(self) -> str | None:
        """Sends a snapshot; returns the error, or None."""
        outcome = self._client.report_now()
        return None if outcome.sent else outcome.reason


def main() -> int:
    """Runs the fleet until SIGTERM or SIGINT; prints each distinct error once to standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--instances", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--started-at", type=float, required=True)
    args = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    queue_slots = threading.Semaphore(MAX_WAITING_REPORTS)
    printed_errors: set[str] = set()

    def send(install: SimulatedInstall) -> None:
        error = None if stop.is_set() else install.report()
        queue_slots.release()
        if error and error not in printed_errors:
            printed_errors.add(error)
            print(f"fleet: {error}", file=sys.stderr, flush=True)  # noqa: T201

    installs = [
        SimulatedInstall(application, persona, args.server, args.data_dir, args.started_at)
        for application, persona in make_installs(args.instances, args.started_at)
    ]
    with ThreadPoolExecutor(SENDER_THREADS) as senders:
        first = []
        for install in random.sample(installs, len(installs)):
            queue_slots.acquire()
            first.append(senders.submit(send, install))
        wait(first)
        print("every install has reported", flush=True)  # noqa: T201 - `shm demo` waits for this line
        while not stop.wait(random.expovariate(args.rate)):
            queue_slots.acquire()
            senders.submit(send, random.choice(installs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
