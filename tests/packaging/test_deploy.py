"""The examples in `deploy/`: a real nginx and a real Caddy pass everything on and write no address of a client."""

import argparse
import asyncio
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme
import yaml
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

import shm.cli.backup
import shm.cli.export
from deploy import dashboard
from shm.core.instruments import METRICS
from shm.core.settings import Settings
from shm.server.checks.address import check_public_address
from shm.server.checks.finding import Level
from shm.server.fleet_metrics import FLEET_METRICS
from tests.support.clusters import wait_for
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess, free_port
from tests.support.subscriber import Subscriber

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROXIES = {"nginx": "nginx.conf", "caddy": "Caddyfile"}
CLIENT_ADDRESS = "127.0.0.9"
PATH_PREFIX = "/shm"
MAX_EXPOSURE = 2.0  # of 10, as systemd-analyze rates a unit
ALERTS = yaml.safe_load((DEPLOY / "prometheus-alerts.yml").read_text())


class Proxy:
    """A proxy with one of the examples, except that ports, certificates and the paths of its files are the test's."""

    def __init__(self, program: str, upstream: int, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
        for number, part in enumerate(certificate.cert_chain_pems):
            part.write_to_path(str(folder / "chain.pem"), append=number > 0)
        self.environment = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.tls = ssl.create_default_context()
        authority.configure_trust(self.tls)
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        getattr(self, f"_configure_{program}")(upstream)

    def _write(self, name: str, changes: dict[str, str]) -> Path:
        text = (DEPLOY / name).read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (self.folder / name).write_text(text)
        return self.folder / name

    def _configure_nginx(self, upstream: int) -> None:
        changes = {
            "listen 443": f"listen 127.0.0.1:{self.port}",
            "        listen [::]:443 ssl;\n": "",
            "/etc/ssl/shm/fullchain.pem": f"{self.folder}/chain.pem",
            "/etc/ssl/shm/privkey.pem": f"{self.folder}/key.pem",
            "127.0.0.1:8080": f"127.0.0.1:{upstream}",
            "/var/log/nginx": str(self.folder),
            "/run/nginx.pid": f"{self.folder}/nginx.pid",
            "worker_processes auto;": "worker_processes 1; daemon off;",
        }
        configuration = self._write("nginx.conf", changes)
        self.command = ["nginx", "-p", str(self.folder), "-e", "stderr", "-c", str(configuration)]

    def _configure_caddy(self, upstream: int) -> None:
        changes = {
            "admin off": "admin off\n\tauto_https disable_redirects",
            "{$SHM_NAME:metrics.example.com} {": f"{self.url} {{\n\ttls {self.folder}/chain.pem {self.folder}/key.pem",
        }
        configuration = self._write("Caddyfile", changes)
        self.environment["SHM_UPSTREAMS"] = f"127.0.0.1:{upstream}"
        self.command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(configuration)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs it. Its output goes into its folder, with its other logs."""
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(self.command, stdout=output, stderr=output, env=self.environment)
            try:
                wait_for(lambda: process.poll() is not None or self._answers(), "the proxy")
                assert process.poll() is None, (self.folder / "output").read_text()
                yield
            finally:
                process.terminate()
                process.wait(60)

    def _answers(self) -> bool:
        try:
            return bool(self.get("/api/v1/healthcheck").status_code)
        except httpx.TransportError:
            return False

    def get(self, path: str, **headers: str) -> httpx.Response:
        """GET through the proxy, from an address that no other test uses."""
        transport = httpx.HTTPTransport(verify=self.tls, local_address=CLIENT_ADDRESS)
        with httpx.Client(transport=transport, timeout=60) as client:
            return client.get(f"{self.url}{path}", headers=headers)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """POST through the proxy."""
        return httpx.post(f"{self.url}{path}", content=body, headers=headers, verify=self.tls, timeout=60)

    def written(self) -> str:
        """All that it has written, without its configuration."""
        names = {"output", "shm.log"}
        return "".join(path.read_text() for path in self.folder.rglob("*") if path.name in names)


@pytest.fixture(scope="module")
def upstream(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that trusts proxies on this machine."""
    with module_server(postgres, tmp_path_factory.mktemp("upstream"), SHM_TRUSTED_PROXIES="127.0.0.1") as (server, _):
        yield server


@pytest.fixture(
    params=[
        pytest.param(program, marks=pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed"))
        for program in PROXIES
    ]
)
def proxy(request: pytest.FixtureRequest, upstream: ServerProcess, tmp_path: Path) -> Iterator[Proxy]:
    """A running proxy in front of the server."""
    tmp_path.chmod(0o755)
    proxy = Proxy(request.param, upstream.port, tmp_path)
    with proxy.running():
        yield proxy


@pytest.mark.parametrize("prefix", ["", PATH_PREFIX])
async def test_installs_readers_and_feeds_pass_a_proxy(upstream: ServerProcess, proxy: Proxy, prefix: str) -> None:
    install = Install(upstream.url)
    headers = {"Content-Type": "application/json"}
    activation = b'{"action":"activate"}'
    snapshot = install.snapshot_body({"orders": 5})
    authorized = HTTPRequest(
        f"{proxy.url.replace('https', 'wss')}{prefix}/api/v1/admin/feed",
        headers=upstream.headers,
        ssl_options=proxy.tls,
    )
    socket = await websocket_connect(authorized)
    feed = Subscriber(socket)
    await feed.until("hello")
    statuses = [
        (await asyncio.to_thread(proxy.post, f"{prefix}{path}", body, sent)).status_code
        for path, body, sent in [
            ("/v1/register", install.registration(), headers),
            ("/v1/activate", activation, install.signed(activation)),
            ("/v1/snapshot", snapshot, install.signed(snapshot)),
        ]
    ]
    assert statuses == [201, 200, 202]
    while install.instance_id not in feed.instances:
        await feed.message()
    socket.close()
    await feed.closed()
    page = await asyncio.to_thread(proxy.get, f"{prefix}/api/v1/admin/instances?limit=1", **upstream.headers)
    assert page.status_code == 200
    if next_page := page.links.get("next"):
        following = str(page.url.join(next_page["url"])).removeprefix(proxy.url)
        assert (await asyncio.to_thread(proxy.get, following, **upstream.headers)).status_code == 200
    assert "is ignored" not in upstream.log  # the warning about an X-Forwarded-For of an unknown proxy


def test_a_proxy_refuses_what_the_server_does_not_serve(proxy: Proxy) -> None:
    assert proxy.get("/badge/nothing/instances").headers["Content-Type"].startswith("image/svg")
    for path in ("/", "/metrics", "/metrics/fleet", "/elsewhere"):
        assert proxy.get(path).status_code == 404, path
    assert proxy.post("/v1/snapshot", b"x" * (Settings().max_backlog_body * 2), {}).status_code == 413


async def test_the_doctor_finds_nothing_wrong_with_a_proxy(
    upstream: ServerProcess, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(proxy.folder / "authority.pem"))
    findings = [finding async for finding in check_public_address(proxy.url, upstream.admin_token)]
    assert [each for each in findings if each.level > Level.OK] == []
    assert {"tls", "proxy", "feed"} <= {each.subject for each in findings}
    monkeypatch.delenv("SSL_CERT_FILE")
    (refused,) = [finding async for finding in check_public_address(proxy.url, None)]
    assert "its certificate is not valid" in refused.text


def test_a_proxy_writes_no_address_of_a_client(
    request: pytest.FixtureRequest, proxy: Proxy, upstream: ServerProcess
) -> None:
    assert proxy.get("/api/v1/healthcheck").status_code == 200
    assert proxy.get("/nowhere").status_code == 404
    upstream.terminate()
    try:
        assert proxy.get("/api/v1/healthcheck").status_code == 502
    finally:
        upstream.start()
    assert CLIENT_ADDRESS not in proxy.written()
    if request.node.callspec.params["proxy"] == "nginx":
        assert "502 GET /api/v1/healthcheck" in proxy.written()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", ["shm.service", "shm-backup.service", "shm-erased.service", "shm-ssh.service"])
def test_the_systemd_units_have_a_sandbox(unit: str) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(DEPLOY / unit)]
    rating = re.search(rf"exposure level for {re.escape(unit)}: ([\d.]+)", subprocess.check_output(command, text=True))
    assert rating is not None
    assert float(rating[1]) < MAX_EXPOSURE


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Their programs and their user do not exist here, and are others for this test."""
    names = [path.name for path in DEPLOY.iterdir() if path.suffix in (".service", ".timer")]
    for name in names:
        text = (DEPLOY / name).read_text().replace("/opt/shm/bin/shm", "/bin/true").replace("User=shm", "User=root")
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_timers_use_the_database_of_the_service() -> None:
    """Both write into one directory."""
    server, backup, erased = (
        (DEPLOY / name).read_text() for name in ("shm.service", "shm-backup.service", "shm-erased.service")
    )
    sandbox = server.partition("\nUMask=")[2].partition("\n\n")[0]
    for text in (server, backup, erased):
        assert sandbox in text
        for line in ("User=shm", "Environment=SHM_DATA_DIR=/var/lib/shm", "EnvironmentFile=-/etc/shm/shm.env"):
            assert f"\n{line}\n" in text
    arguments = parse_command(backup, shm.cli.backup.configure)
    assert (arguments.directory, arguments.keep) == (Path("/var/lib/shm-backup"), 7)
    export = parse_command(erased, shm.cli.export.configure)
    assert (export.erased, export.output.parent) == (True, arguments.directory)


def parse_command(unit: str, configure: Callable[[argparse.ArgumentParser], None]) -> argparse.Namespace:
    """The arguments of the command that a unit runs."""
    (command,) = re.findall(r"^ExecStart=/opt/shm/bin/shm (.*)", unit, re.MULTILINE)
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args(command.split()[1:])


def exported_names() -> set[str]:
    """The names of all samples of `GET /metrics` and `GET /metrics/fleet`."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    metrics = (*METRICS, *FLEET_METRICS)
    return {"shm_build_info"} | {f"{metric.name}{suffix}" for metric in metrics for suffix in suffixes[metric.kind]}


def check_promql(expressions: list[str], folder: Path) -> None:
    """Fails if Prometheus does not accept an expression."""
    rules = [{"record": "checked", "expr": text.replace(dashboard.RATE, "5m")} for text in expressions]
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "checked", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", "--lint=none", str(folder / "rules.yml")], check=True)


def test_alerts_refer_to_existing_metrics() -> None:
    known = exported_names()
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        names = set(re.findall(r"\bshm_\w+", rule["expr"]))
        assert names, rule["alert"]
        assert names <= known, rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_prometheus_accepts_the_alerts() -> None:
    subprocess.run(["promtool", "check", "rules", str(DEPLOY / "prometheus-alerts.yml")], check=True)


def test_the_dashboard_is_that_of_its_list_and_shows_every_metric() -> None:
    assert json.loads((DEPLOY / "grafana-dashboard.json").read_text()) == dashboard.dashboard(), "run `make dashboard`"
    queries = " ".join(query for panel in dashboard_panels() for query in panel.queries.values())
    shown = set(re.findall(r"\bshm_\w+", queries))
    assert shown <= exported_names()
    for metric in (*METRICS, *FLEET_METRICS):
        assert re.search(rf"\b{metric.name}(_total|_bucket|_sum)?\b", queries), f"no panel shows {metric.name}"


def test_panels_group_by_labels_that_the_metrics_have() -> None:
    labels = {metric.name: {*metric.labels, "worker"} for metric in (*METRICS, *FLEET_METRICS)}
    for panel in dashboard_panels():
        for legend, query in panel.queries.items():
            names = {name for name in labels if re.search(rf"\b{name}(_total|_bucket|_sum)?\b", query)}
            used = {each.strip() for group in re.findall(r"by \(([^)]*)\)", query) for each in group.split(",")} - {
                "le"
            }
            assert all(used <= labels[name] for name in names), panel.title
            if names:
                assert set(re.findall(r"{{(\w+)}}", legend)) <= used, panel.title


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_prometheus_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    check_promql([query for panel in dashboard_panels() for query in panel.queries.values()], tmp_path)


def dashboard_panels() -> list[dashboard.Panel]:
    """All panels."""
    return [panel for section in dashboard.SECTIONS.values() for panel in section]


@pytest.mark.skipif(not shutil.which("caddy"), reason="caddy is not installed")
def test_caddy_accepts_the_documented_access_for_monitoring(tmp_path: Path) -> None:
    """The block of docs/deploy-systemd.md, above the last `handle`."""
    guide = (DEPLOY.parent / "docs/deploy-systemd.md").read_text()
    (block,) = re.findall(r"^```\n(\t@monitoring .*?)^```", guide, re.MULTILINE | re.DOTALL)
    before, separator, after = (DEPLOY / "Caddyfile").read_text().rpartition("\thandle {\n")
    (tmp_path / "Caddyfile").write_text(f"{before}{block}\n{separator}{after}")
    command = ["caddy", "adapt", "--validate", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    adapted = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "/metrics/fleet" in adapted
    assert "192.0.2.10" in adapted
