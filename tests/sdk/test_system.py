"""System metrics say what kind of machine this is, and nothing about whose."""

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from shm_sdk import snapshot, system

ALWAYS = {"sys_os", "sys_arch", "sys_cpu_cores", "sys_python_version", "sys_mode", "app_mem_rss_mb", "app_uptime_h"}
WITH_PSUTIL = {"app_cpu_pct", "app_threads", "sys_mem_total_mb"}


def in_a_process(before: str = "", **environment: str) -> dict[str, object]:
    after = "import json, time; from shm_sdk.system import *; print(json.dumps(system_metrics(time.monotonic())))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{before}\n{after}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    metrics = json.loads(done.stdout)
    assert isinstance(metrics, dict)
    return metrics


def test_the_promised_metrics_come_by_themselves_and_go_as_they_are() -> None:
    metrics = system.system_metrics(time.monotonic() - 5400)
    assert metrics.keys() == ALWAYS | WITH_PSUTIL
    assert metrics["app_uptime_h"] == pytest.approx(1.5, abs=0.1)
    assert metrics["sys_python_version"] == platform.python_version()
    cleaned = snapshot.clean(dict(metrics))
    assert (cleaned.metrics, cleaned.dropped) == (metrics, [])


def test_without_psutil_only_its_additions_are_missing() -> None:
    assert in_a_process("import sys; sys.modules['psutil'] = None").keys() == ALWAYS


def test_memory_without_psutil_is_what_psutil_would_say() -> None:
    own = system._resident_mb()
    assert own == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.1)


def test_no_name_address_or_path_of_the_machine_is_in_them() -> None:
    said = [str(value) for value in system.system_metrics(time.monotonic()).values()]
    private = {socket.gethostname(), getpass.getuser(), platform.node(), str(Path.home()), str(Path.cwd())}
    for address in (one.address for addresses in psutil.net_if_addrs().values() for one in addresses):
        private.add(address)
    assert not private & set(said)
    assert not any("/" in value for value in said)


def test_kubernetes_is_told_by_what_it_puts_into_the_environment() -> None:
    assert in_a_process(KUBERNETES_SERVICE_HOST="10.0.0.1")["sys_mode"] == "kubernetes"


def test_a_figure_that_cannot_be_had_takes_no_other_with_it() -> None:
    broken = "import os, sys; sys.modules['psutil'] = None; del os.sched_getaffinity; os.cpu_count = lambda: 1 / 0"
    assert in_a_process(broken).keys() == ALWAYS - {"sys_cpu_cores"}


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")])
def test_architectures_are_spelled_as_the_official_clients_do(machine: str, name: str) -> None:
    metrics = in_a_process(f"import platform; platform.machine = lambda: {machine!r}")
    assert metrics["sys_arch"] == name
