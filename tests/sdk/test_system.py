"""System metrics describe the machine and the process, and identify neither machine nor user."""

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


def collect_in_subprocess(setup: str = "", **environment: str) -> dict[str, object]:
    program = (
        "import json, time; from shm_sdk.system import *; print(json.dumps(collect_system_metrics(time.monotonic())))"
    )
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{setup}\n{program}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    metrics = json.loads(completed.stdout)
    assert isinstance(metrics, dict)
    return metrics


def test_the_documented_metrics_are_collected() -> None:
    metrics = system.collect_system_metrics(time.monotonic() - 5400)
    assert metrics.keys() == ALWAYS | WITH_PSUTIL
    assert metrics["app_uptime_h"] == pytest.approx(1.5, abs=0.1)
    assert metrics["sys_python_version"] == platform.python_version()
    sanitized = snapshot.sanitize(dict(metrics))
    assert (sanitized.metrics, sanitized.dropped) == (metrics, [])


def test_psutil_is_optional() -> None:
    assert collect_in_subprocess("import sys; sys.modules['psutil'] = None").keys() == ALWAYS


def test_memory_without_psutil_equals_that_of_psutil() -> None:
    resident_mb = system._resident_memory_mb()
    assert resident_mb == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.1)


def test_no_name_address_or_path_is_collected() -> None:
    values = [str(value) for value in system.collect_system_metrics(time.monotonic()).values()]
    private = {socket.gethostname(), getpass.getuser(), platform.node(), str(Path.home()), str(Path.cwd())}
    for address in (entry.address for entries in psutil.net_if_addrs().values() for entry in entries):
        private.add(address)
    assert not private & set(values)
    assert not any("/" in value for value in values)


def test_kubernetes_is_detected_by_its_variable() -> None:
    assert collect_in_subprocess(KUBERNETES_SERVICE_HOST="10.0.0.1")["sys_mode"] == "kubernetes"


def test_a_failing_metric_affects_no_other() -> None:
    broken = "import os, sys; sys.modules['psutil'] = None; del os.sched_getaffinity; os.cpu_count = lambda: 1 / 0"
    assert collect_in_subprocess(broken).keys() == ALWAYS - {"sys_cpu_cores"}


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")])
def test_architectures_have_the_official_clients_names(machine: str, name: str) -> None:
    metrics = collect_in_subprocess(f"import os; os.uname = lambda: os.uname_result(('', '', '', '', {machine!r}))")
    assert metrics["sys_arch"] == name
