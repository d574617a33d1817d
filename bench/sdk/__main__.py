"""`make bench-sdk`: what the SDK costs its host, beside two SDKs that vendors commonly embed.

Every process is a new one, on the versions of requirements-bench-sdk.lock. The SDKs of a row alternate. A figure over a
host is the difference to the same host without the SDK, in two processes one after the other.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.sdk.hosts import Hosts
from bench.sdk.measured_sdks import MEASURED_SDKS, SHM, MeasuredSdk
from bench.sdk.sink import Sink, create_tls, running_sink, silent_server
from bench.support.errors import InvalidRun
from bench.support.report import Samples, Table, print_line, print_target
from shm.core.signals import exit_on_signals

COLUMNS = (("", 46), *((sdk.name, 22) for sdk in MEASURED_SDKS))
FLASK = "import flask; app = flask.Flask('host')"
STEADY_REPORTS = 30  # posthog's queue waits half a second before each
MAX_IMPORT_MS, MAX_FLASK_IMPORT_MS, MAX_REPORT_CPU_MS = 25.0, 8.0, 5.0
MAX_MIB, MAX_BARE_MIB = 8.0, 14.0
MAX_EXIT_MS = 50.0  # the difference between the ends of two processes of a busy machine
MAX_FLUSH_MS = 2000.0 + MAX_EXIT_MS  # `stop(flush=True)` waits for two seconds

Row = dict[str, Samples]  # by the name of an SDK


class Bench:
    """All measurements, each `rounds` times."""

    def __init__(self, hosts: Hosts, sink: Sink, secure_sink: Sink, rounds: int) -> None:
        self._hosts = hosts
        self._sink = sink
        self._secure_sink = secure_sink
        self._rounds = rounds
        self._table = Table(*COLUMNS)

    def run(self) -> None:
        """Prints the table and the targets."""
        bare = self._measure_process("import, over bare Python, ms of CPU", "pass", "{import}")
        flask = self._measure_process("import, over a Flask host, ms of CPU", FLASK, "{import}")
        self._measure_process("import, create, start, over bare Python", "pass", "{import}\n{start}")
        self._measure_process("import, create, start, over a Flask host", FLASK, "{import}\n{start}")
        self._measure("first report in a Flask host, ms of CPU", FLASK + "\n{import}\n{start}", "{report}", "cpu_ms")
        steady = self._measure_steady()
        bare_mib = self._measure("memory after a report, MiB over bare Python", "", "{all}", "resident_mib")
        ssl_mib = self._measure("memory, MiB over a host with ssl loaded", "import ssl", "{all}", "resident_mib")
        self._measure("memory, MiB over a Flask host", FLASK, "{all}", "resident_mib")
        self._measure("the same, over https", FLASK, "{all}", "resident_mib", self._secure_sink)
        with silent_server() as url:
            exit_ms = self._measure_exit("exit delay while the server is silent, ms", "", url)
            flush_ms = self._measure_exit("the same, with a last report, ms", "{flush}", url)
        print_line()
        for target, limit, row, unit in (
            ("import over bare Python", MAX_IMPORT_MS, bare, "ms"),
            ("import over a Flask host", MAX_FLASK_IMPORT_MS, flask, "ms"),
            ("a snapshot", MAX_REPORT_CPU_MS, steady, "ms of CPU"),
            ("memory over a host with ssl loaded", MAX_MIB, ssl_mib, "MiB"),
            ("memory over bare Python", MAX_BARE_MIB, bare_mib, "MiB"),
            ("exit delay without a last report", MAX_EXIT_MS, exit_ms, "ms"),
            ("exit delay with a last report", MAX_FLUSH_MS, flush_ms, "ms"),
        ):
            figure = row[SHM.name].median
            print_target(f"{target}: under {limit:g} {unit}", f"{figure:.1f} {unit}", met=figure < limit)

    def _measure_process(self, name: str, host: str, statements: str) -> Row:
        """The statements, as the difference between two processes one after the other. The first pair is dropped."""
        row: dict[str, list[float]] = {sdk.name: [] for sdk in MEASURED_SDKS}
        for number in range(self._rounds + 1):
            for sdk in MEASURED_SDKS:
                without = self._hosts.measure_process(sdk, host)
                full = self._hosts.measure_process(sdk, f"{host}\n{_expand(statements, sdk)}")
                if number:
                    row[sdk.name].append(full - without)
        return self._print(name, row)

    def _measure(self, name: str, host: str, statements: str, figure: str, server: Sink | None = None) -> Row:
        sink = server or self._sink
        row: dict[str, list[float]] = {sdk.name: [] for sdk in MEASURED_SDKS}
        for _ in range(self._rounds):
            for sdk in MEASURED_SDKS:
                before = sink.requests[sdk.path]
                cost = self._hosts.measure(sdk, _expand(statements, sdk), _expand(host, sdk), url=sink.url)
                _check(sdk, sink.requests[sdk.path] - before, 1)
                row[sdk.name].append(getattr(cost, figure))
        return self._print(name, row)

    def _measure_steady(self) -> Row:
        """The CPU time of one of many reports."""
        row: dict[str, list[float]] = {sdk.name: [] for sdk in MEASURED_SDKS}
        for _ in range(max(self._rounds // 4, 1)):
            for sdk in MEASURED_SDKS:
                before = self._sink.requests[sdk.path]
                body = f"for _ in range({STEADY_REPORTS}):\n    {sdk.report}"
                cost = self._hosts.measure(sdk, body, _expand("{all}", sdk))
                _check(sdk, self._sink.requests[sdk.path] - before, STEADY_REPORTS)
                row[sdk.name].append(cost.cpu_ms / STEADY_REPORTS)
        return self._print(f"each of {STEADY_REPORTS} more reports, ms of CPU", row, digits=2)

    def _measure_exit(self, name: str, end: str, url: str) -> Row:
        """The end of a process, over that of one that has only imported the SDK."""
        row: dict[str, list[float]] = {sdk.name: [] for sdk in MEASURED_SDKS}
        for _ in range(max(self._rounds // 4, 1)):
            for sdk in MEASURED_SDKS:
                statements = _expand("{start}\n{begin}", sdk)
                without = self._hosts.time_exit(sdk, "pass", "", url)
                full = self._hosts.time_exit(sdk, statements, _expand(end, sdk), url)
                row[sdk.name].append(full - without)
        return self._print(name, row, digits=0)

    def _print(self, name: str, row: dict[str, list[float]], digits: int = 1) -> Row:
        samples = {name: Samples(values) for name, values in row.items()}
        self._table.print_row(name, *(each.format(digits) for each in samples.values()))
        return samples


def _check(sdk: MeasuredSdk, arrived: int, expected: int) -> None:
    if arrived < expected:
        raise InvalidRun(f"{sdk.name} has sent {arrived} of {expected} requests")


def _expand(text: str, sdk: MeasuredSdk) -> str:
    """The statements of an SDK in a text."""
    return (
        text.replace("{all}", "{import}\n{start}\n{report}")
        .replace("{import}", f"import {sdk.module}")
        .replace("{start}", sdk.start)
        .replace("{report}", sdk.report)
        .replace("{begin}", sdk.begin)
        .replace("{flush}", sdk.flush)
    )


def main(arguments: Sequence[str]) -> int:
    """0 if everything was measured, whether or not a target was met; 1 if a figure would be wrong."""
    parser = argparse.ArgumentParser(prog="bench.sdk", description=__doc__.partition("\n")[0])
    parser.add_argument("--python", type=Path, default=sys.executable, help="the interpreter of the environment")
    parser.add_argument("--rounds", type=int, default=11, help="measurements of each figure")
    options = parser.parse_args(arguments)
    with exit_on_signals(), tempfile.TemporaryDirectory(prefix="shm-bench-") as folder, ExitStack() as servers:
        os.environ["TMPDIR"] = folder
        authority_file = Path(folder) / "authority.pem"
        sink = servers.enter_context(running_sink())
        secure_sink = servers.enter_context(running_sink(create_tls(authority_file)))
        for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            os.environ[variable] = str(authority_file)
        print_line(
            f"{os.cpu_count()} CPUs, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the start, "
            f"median and range of {options.rounds}"
        )
        try:
            Bench(Hosts(options.python, sink.url), sink, secure_sink, options.rounds).run()
        except InvalidRun as error:
            print(f"No figures: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
