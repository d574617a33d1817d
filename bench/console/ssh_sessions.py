"""`shm ssh` with a key of the bench, and several sessions of the OpenSSH client."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.console.measures import SETTLE_S, SIZE, measure_keys
from bench.console.terminal import open_program
from bench.support.machine import cpu_seconds
from bench.support.processes import CHECKOUT, END_TIMEOUT_S, free_port, python_process, wait_until
from bench.support.server import RunningServer

SESSIONS = 10
KEYS = 20
READY = "are served"  # in the log of `shm ssh`


@dataclass(frozen=True, slots=True)
class SshCost:
    """Seconds from the start of the client to the first rows, milliseconds of keys, and the cost of all sessions."""

    rows_s: float
    keys: list[float]
    cpu_percent: float  # of a core
    mib: float  # of all processes, shared pages counted once


def is_available() -> bool:
    """Whether the OpenSSH client is installed."""
    return shutil.which("ssh") is not None


def measure_sessions(server: RunningServer, folder: Path, seconds: float) -> SshCost:
    """One session in a terminal of the bench, and others whose output nobody reads."""
    with ExitStack() as stack:
        pid, command = stack.enter_context(_ssh_server(server, folder))
        for _ in range(SESSIONS - 1):
            stack.enter_context(_unread(command))
        terminal = stack.enter_context(open_program(command, SIZE, {}))
        rows_s = terminal.wait_until(lambda: terminal.has_rows) - terminal.started_at
        terminal.read_for(SETTLE_S)
        cpu = cpu_seconds(pid)
        terminal.read_for(seconds)
        cpu_percent = (cpu_seconds(pid) - cpu) / seconds * 100
        keys = measure_keys(terminal, KEYS)
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        mib = sum(process.memory_full_info().pss for process in tree) / 2**20
    return SshCost(rows_s, keys, cpu_percent, mib)


@contextmanager
def _ssh_server(server: RunningServer, folder: Path) -> Iterator[tuple[int, list[str]]]:
    """The process of `shm ssh`, and the command of a client."""
    key, keys, log_file, port = folder / "client_key", folder / "ssh", folder / "ssh.log", free_port()
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", str(key)], check=True)
    add = [sys.executable, "-m", "shm.cli", "ssh", "add", "bench", f"{key}.pub", "--data-dir", str(keys)]
    subprocess.run(add, cwd=CHECKOUT, env=os.environ | {"SHM_DB_DSN": server.dsn}, check=True, capture_output=True)
    arguments = ("ssh", "--port", str(port), "--server", server.url, "--data-dir", str(keys))
    limit = {"SHM_SSH_MAX_SESSIONS_PER_KEY": str(SESSIONS)}
    options = ["-F", "/dev/null", "-i", str(key), "-p", str(port), "-o", "StrictHostKeyChecking=no"]
    options += ["-o", f"UserKnownHostsFile={folder / 'known_hosts'}", "-o", "LogLevel=ERROR", "-tt"]
    with python_process("shm.cli", *arguments, environment=limit, log_file=log_file) as process:
        wait_until(lambda: READY in log_file.read_text(), process, "shm ssh")
        yield process.pid, ["ssh", *options, "127.0.0.1"]


@contextmanager
def _unread(command: Sequence[str]) -> Iterator[None]:
    """A session, ended with the context."""
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        client.terminate()
        client.wait(END_TIMEOUT_S)
