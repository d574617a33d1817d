"""Certificate authorities: the variables of other clients, the host's certifi, and the error where there are none."""

import shutil
import subprocess
from pathlib import Path

import pytest

from shm_sdk.certificates import BUNDLE_VARIABLES, OPENSSL_VARIABLES
from tests.support.scripted_server import run_scripted_server
from tests.support.sdk_hosts import REPORT, report_in_subprocess
from tests.support.tls import Tls, create_tls

# The system's store is that of OpenSSL's build. Without its authorities, a process is as in a minimal container.
EMPTY_STORE = f"""
import ssl
ssl.SSLContext.load_default_certs = lambda *_: None
paths = ssl.get_default_verify_paths()
ssl.get_default_verify_paths = lambda: paths._replace(cafile=None, capath=None)
{REPORT}
"""


@pytest.mark.parametrize("variable", [OPENSSL_VARIABLES[0], *BUNDLE_VARIABLES])
def test_a_variable_names_the_authorities(tls: Tls, tmp_path: Path, variable: str) -> None:
    with run_scripted_server(tls.context) as server:
        output = report_in_subprocess(server.url, tmp_path, **{variable: tls.authority})
        assert "Result.SENT" in output
        assert server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]


@pytest.mark.parametrize(
    ("trusting", "other"), [("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
)
def test_the_first_variable_counts(tls: Tls, tmp_path: Path, trusting: str, other: str) -> None:
    stranger = create_tls(tmp_path).authority
    with run_scripted_server(tls.context) as server:
        output = report_in_subprocess(server.url, tmp_path / "a", **{trusting: tls.authority, other: stranger})
        assert "Result.SENT" in output
        output = report_in_subprocess(server.url, tmp_path / "b", **{trusting: stranger, other: tls.authority})
        assert "certificate" in output
        assert len(server.paths) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "REQUESTS_CA_BUNDLE names a file that cannot be read (No such file or directory)"),
        ("", "REQUESTS_CA_BUNDLE names a file without certificates"),
        ("not a certificate\n", "REQUESTS_CA_BUNDLE names a file without certificates"),
    ],
    ids=["missing", "empty", "text"],
)
def test_a_bundle_that_cannot_be_used_is_named(tls: Tls, tmp_path: Path, content: str | None, reason: str) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    with run_scripted_server(tls.context) as server:
        output = report_in_subprocess(server.url, tmp_path, REQUESTS_CA_BUNDLE=str(bundle))
        assert reason in output
        assert server.requests == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("gevent.monkey", "import gevent.monkey; gevent.monkey.patch_all()"),
        ("truststore", "import truststore; truststore.inject_into_ssl()"),
    ],
)
def test_a_host_that_replaces_ssl_reports(tls: Tls, tmp_path: Path, module: str, statement: str) -> None:
    pytest.importorskip(module.partition(".")[0])
    with run_scripted_server(tls.context) as server:
        output = report_in_subprocess(server.url, tmp_path, f"{statement}\n{REPORT}", SSL_CERT_FILE=tls.authority)
        assert "Result.SENT" in output


def test_the_hosts_certifi_replaces_an_empty_store(tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "certifi.py").write_text(f"def where() -> str: return {tls.authority!r}\n")
    with run_scripted_server(tls.context) as server:
        output = report_in_subprocess(server.url, tmp_path / "data", EMPTY_STORE, PYTHONPATH=str(tmp_path))
        assert "Result.SENT" in output


SYSTEM_STORE = f"""
import ssl
FILE, DIRECTORY = {{file!r}}, {{directory!r}}
paths = ssl.get_default_verify_paths()
ssl.get_default_verify_paths = lambda: paths._replace(cafile=FILE, capath=DIRECTORY)
ssl.SSLContext.load_default_certs = lambda self, *_: [self.load_verify_locations(FILE, DIRECTORY), print("all")]
{REPORT.replace("{", "{{").replace("}", "}}")}
"""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="it names the files of a directory of authorities")
@pytest.mark.parametrize(
    ("in_directory", "in_file", "output"),
    [(True, False, "Result.SENT"), (False, True, "all\nOutcome(result=<Result.SENT"), (False, False, "certificate")],
    ids=["directory", "file", "neither"],
)
def test_the_systems_directory_is_tried_before_its_file(
    tls: Tls, tmp_path: Path, in_directory: bool, in_file: bool, output: str
) -> None:
    """The file is loaded only if the directory does not verify the server, which it always has to."""
    stranger = create_tls(tmp_path).authority
    directory = tmp_path / "certs"
    directory.mkdir()
    shutil.copy(tls.authority if in_directory else stranger, directory / "authority.pem")
    subprocess.run(["openssl", "rehash", str(directory)], check=True, timeout=60)
    file = tls.authority if in_file else stranger
    program = SYSTEM_STORE.format(file=file, directory=str(directory))
    with run_scripted_server(tls.context) as server:
        printed = report_in_subprocess(server.url, tmp_path / "data", program)
        assert output in printed
        assert ("all" in printed) is not in_directory
        assert len(server.paths) == (3 if in_directory or in_file else 0)


def test_an_empty_store_is_named_with_the_remedy(tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "certifi.py").write_text("raise ImportError\n")
    with run_scripted_server(tls.context) as server:
        output = report_in_subprocess(server.url, tmp_path / "data", EMPTY_STORE, PYTHONPATH=str(tmp_path))
        assert "install ca-certificates or certifi, or set SSL_CERT_FILE" in output
        output = report_in_subprocess(
            server.url, tmp_path / "other", EMPTY_STORE, PYTHONPATH=str(tmp_path), SSL_CERT_FILE=str(tmp_path / "none")
        )
        assert "SSL_CERT_FILE names no certificate authorities" in output
        assert server.requests == []
