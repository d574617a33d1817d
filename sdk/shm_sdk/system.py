"""System metrics: properties and resource usage of the machine and the process.

This module reads no host name, user name, address or path. A metric that cannot be read is left out; the others are
not affected.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shm_sdk import forking

MEBIBYTE = 1024 * 1024
SECONDS_PER_HOUR = 3600

# The official Go client uses these names. The same names here make one architecture one value on the server.
ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "i386": "386",
    "i686": "386",
    "x86": "386",
    "armv6l": "arm",
    "armv7l": "arm",
}
SYSTEMS = {"win32": "windows", "cygwin": "windows"}
KUBERNETES_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONTAINER_MARKER_FILES = (Path("/.dockerenv"), Path("/run/.containerenv"))  # of Docker and Podman
CONTAINER_CGROUP_NAMES = ("docker", "containerd", "libpod", "lxc")


def collect_system_metrics(started_at: float) -> dict[str, object]:
    """All system metrics by key. `started_at` is the `time.monotonic()` of the application's start."""
    collectors: dict[str, Callable[[], object]] = {
        "sys_os": detect_os,
        "sys_arch": detect_architecture,
        "sys_cpu_cores": _count_cores,
        "sys_python_version": lambda: ".".join(str(part) for part in sys.version_info[:3]),
        "sys_mode": detect_deployment_mode,
        "app_mem_rss_mb": _resident_memory_mb,
        "app_uptime_h": lambda: round((time.monotonic() - started_at) / SECONDS_PER_HOUR, 2),
    }
    metrics: dict[str, object] = {}
    for key, collect in collectors.items():
        try:
            value = collect()
        except Exception:  # noqa: S112  # this system does not have the metric
            continue
        if value is not None:
            metrics[key] = value
    return metrics | _psutil_metrics()


def detect_os() -> str:
    """The operating system: `linux`, `darwin`, `windows`, ..."""
    return SYSTEMS.get(sys.platform, sys.platform)


def detect_architecture() -> str:
    """The processor architecture: `amd64`, `arm64`, ..."""
    if hasattr(os, "uname"):
        machine = os.uname().machine.lower()
    else:
        import platform

        machine = platform.machine().lower()
    return ARCHITECTURES.get(machine, machine)


def detect_deployment_mode() -> str:
    """How the process runs: `kubernetes`, `docker` (any container) or `standalone`."""
    if os.environ.get("KUBERNETES_SERVICE_HOST") or KUBERNETES_SERVICE_ACCOUNT.exists():
        return "kubernetes"
    if any(file.exists() for file in CONTAINER_MARKER_FILES):
        return "docker"
    try:
        cgroups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return "standalone"
    if "kubepods" in cgroups:
        return "kubernetes"
    return "docker" if any(name in cgroups for name in CONTAINER_CGROUP_NAMES) else "standalone"


def _count_cores() -> int | None:
    """The cores that this process may use; in a container they can be fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _resident_memory_mb() -> float | None:
    """Memory in use, on Linux only: elsewhere the standard library has the peak and not the current value."""
    if sys.platform != "linux":
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE, 1)


def _psutil_metrics() -> dict[str, object]:
    """CPU and threads of the process and the machine's memory, if psutil is installed."""
    try:
        with forking.import_lock:  # where it is missing, each report looks for it
            import psutil

        process = psutil.Process()
        with process.oneshot():
            cpu, memory = process.cpu_times(), process.memory_info()
            lifetime_s = max(time.time() - process.create_time(), 1.0)
            threads = process.num_threads()
        return {
            "app_mem_rss_mb": round(memory.rss / MEBIBYTE, 1),
            "app_cpu_pct": round(100 * (cpu.user + cpu.system) / lifetime_s, 2),  # average over the life of the process
            "app_threads": threads,
            "sys_mem_total_mb": psutil.virtual_memory().total // MEBIBYTE,
        }
    except Exception:  # psutil is not installed, or the system denies access
        return {}
