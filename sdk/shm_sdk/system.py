"""What a snapshot says about the machine and the process: kinds and amounts, never names.

No host name, user name, address or path is read here. Every figure stands alone: one that cannot be had is left out.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

MEBIBYTE = 1024 * 1024
SECONDS_PER_HOUR = 3600

# Spelled as the official Go client spells them, so that one architecture is one row whatever sent it.
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
KUBERNETES_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))  # Docker's and Podman's
CONTAINER_GROUPS = ("docker", "containerd", "libpod", "lxc")


def system_metrics(started: float) -> dict[str, object]:
    """The metrics that come by themselves; `started` is the `time.monotonic()` at which the application began."""
    figures: dict[str, Callable[[], object]] = {
        "sys_os": operating_system,
        "sys_arch": architecture,
        "sys_cpu_cores": _cores,
        "sys_python_version": lambda: ".".join(str(part) for part in sys.version_info[:3]),
        "sys_mode": deployment_mode,
        "app_mem_rss_mb": _resident_mb,
        "app_uptime_h": lambda: round((time.monotonic() - started) / SECONDS_PER_HOUR, 2),
    }
    metrics: dict[str, object] = {}
    for key, figure in figures.items():
        try:
            value = figure()
        except Exception:  # noqa: S112  # an exotic system lacks a figure; the others still go
            continue
        if value is not None:
            metrics[key] = value
    return metrics | _psutil_metrics()


def operating_system() -> str:
    """`linux`, `darwin`, `windows`, ..."""
    return SYSTEMS.get(sys.platform, sys.platform)


def architecture() -> str:
    """`amd64`, `arm64`, ..."""
    import platform

    machine = platform.machine().lower()
    return ARCHITECTURES.get(machine, machine)


def deployment_mode() -> str:
    """`kubernetes`, `docker` (any container) or `standalone`."""
    if os.environ.get("KUBERNETES_SERVICE_HOST") or KUBERNETES_ACCOUNT.exists():
        return "kubernetes"
    if any(mark.exists() for mark in CONTAINER_MARKS):
        return "docker"
    try:
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return "standalone"
    if "kubepods" in groups:
        return "kubernetes"
    return "docker" if any(word in groups for word in CONTAINER_GROUPS) else "standalone"


def _cores() -> int | None:
    """The cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _resident_mb() -> float | None:
    """Memory in use now. Without psutil only Linux tells; elsewhere the standard library knows but the peak."""
    if sys.platform != "linux":
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE, 1)


def _psutil_metrics() -> dict[str, object]:
    """What psutil adds where the host has it: CPU and threads of the process, memory of the machine."""
    try:
        import psutil

        process = psutil.Process()
        with process.oneshot():
            cpu, memory = process.cpu_times(), process.memory_info()
            alive = max(time.time() - process.create_time(), 1.0)
            threads = process.num_threads()
        return {
            "app_mem_rss_mb": round(memory.rss / MEBIBYTE, 1),
            "app_cpu_pct": round(100 * (cpu.user + cpu.system) / alive, 2),  # over the life of the process
            "app_threads": threads,
            "sys_mem_total_mb": psutil.virtual_memory().total // MEBIBYTE,
        }
    except Exception:  # not installed, or this system does not let it look
        return {}
