"""What a second worker adds: measured on this machine, and reasoned for four cores.

Workers take turns at the writers' lock. What a batch takes from the beginning of its write to its COMMIT is therefore
serial over all workers, and bounds their rate however many cores there are, unless the batches become larger.
"""

import os
from collections.abc import Sequence

from bench.intake.runs import RunPair
from bench.support.report import Samples, print_line, print_target

CORES = 4
MIN_GAIN = 1.5


def print_two_workers(one: Sequence[RunPair], two: Sequence[RunPair]) -> None:
    """Runs of one worker and of two at the same number of connections."""
    rate = Samples([pair.server.rate for pair in one]).median
    server_ms = Samples([pair.server_ms for pair in one]).median
    postgres_ms = Samples([pair.postgres_ms for pair in one]).median
    storing_ms = Samples([pair.storing_ms for pair in one]).median
    serial_ms = Samples([pair.batch_ms for pair in one]).median
    batch_size = Samples([pair.server.acknowledged / max(pair.batches, 1) for pair in one]).median
    cores = Samples([pair.server_cores + pair.postgres_cores + pair.server.wrk_cores for pair in two]).median
    bounds = {
        "the CPU of two workers": 2e3 / server_ms,
        "the writers' lock": 1e3 / serial_ms,
        f"{CORES} cores": CORES * 1e3 / (server_ms + postgres_ms),
    }
    bound = min(bounds, key=lambda name: bounds[name])
    reasoned, measured = bounds[bound] / rate, Samples([pair.server.rate for pair in two]).median / rate
    print_line(
        f"a second worker: {measured:.2f} times the snapshots, with {cores:.2f} of {os.cpu_count()} cores used, the "
        "senders' too"
    )
    print_line(
        f"one worker, a snapshot: CPU of the server {server_ms:.2f} ms, PostgreSQL {postgres_ms:.2f} ms; serial, from "
        f"write to COMMIT, {serial_ms:.2f} ms, of which CPU {storing_ms:.2f} ms, in batches of {batch_size:.0f}"
    )
    print_line(f"so two workers reach about {', '.join(f'{most:,.0f}/s by {name}' for name, most in bounds.items())}")
    if (os.cpu_count() or 1) >= CORES:
        gain, figure = measured, f"{measured:.2f}"
    else:
        gain = max(measured, reasoned)
        figure = f"{measured:.2f} measured on {os.cpu_count()}, {reasoned:.2f} reasoned; the bound is {bound}"
    print_target(f"two workers at least {MIN_GAIN} times one on {CORES} cores", figure, met=gain >= MIN_GAIN)
