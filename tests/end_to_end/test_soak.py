"""A soak test: hostile clients, faults and honest installs. Acknowledged snapshots are stored, memory is bounded."""

import argparse
import os
import random
import secrets
import signal
import time
from pathlib import Path

import psutil
import pytest

from shm.cli.check import run as check
from tests.support.clusters import embedded_cluster
from tests.support.hostile_clients import HostileClients
from tests.support.load import Load, stored_snapshots

HONEST = 3
FAULT_INTERVAL_S = 45
MAX_LOG_BYTES = 2**20
MAX_GROWTH_BYTES = 48 * 2**20  # from the first to the last measurement after the last fault
SECONDS = 600


@pytest.mark.long
@pytest.mark.parametrize("seconds", [20, SECONDS])
def test_strangers_and_faults_cost_honest_installs_nothing(postgres_dir: Path, seconds: int) -> None:
    faults = max(1, seconds // FAULT_INTERVAL_S)
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbits(32))
    print(f"to repeat this run: SOAK_SEED={seed}")
    rng = random.Random(seed)
    with embedded_cluster(postgres_dir, SHM_RATELIMIT_BRUTEFORCE_THRESHOLD="5") as cluster:
        (server,) = cluster.servers
        load, hostile = Load(cluster.urls, HONEST, rest_s=0.05), HostileClients(server.url, random.Random(rng.random()))
        with load.running(), hostile.running():
            for _ in range(faults):
                time.sleep(seconds / (faults + 1))
                if rng.random() < 0.5:
                    server.kill()
                    server.start()
                else:
                    cluster.kill_postgres(signal.SIGQUIT)
                    cluster.start_postgres()
                load.reset_progress()
                load.wait_for(load.has_progress, "snapshots stored again after a fault")
            before = memory(server.pid)
            time.sleep(seconds / (faults + 1))
            after = memory(server.pid)
        assert load.faults == []
        assert len(load.acknowledged) > seconds
        assert min(hostile.attacks.values()) > 0, hostile.attacks
        stored = {(instance_id, at) for instance_id, at, _ in stored_snapshots(cluster.dsn)}
        assert set(load.acknowledged) - stored == set()
        assert check(argparse.Namespace(dsn=cluster.dsn, data_dir=None, repair=False)) == 0
        assert after - before < MAX_GROWTH_BYTES
        assert "Traceback" not in server.log
        assert server.log_file.stat().st_size < MAX_LOG_BYTES


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(psutil.Process(pid).memory_info().rss)
