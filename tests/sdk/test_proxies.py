"""Which proxy leads to a server, by the environment."""

from urllib.parse import urlsplit

import pytest

from shm_sdk import Client, Result
from shm_sdk.proxies import UnsupportedProxyError, find_proxy
from tests.support.scripted_server import run_scripted_server

PROXY = "http://proxy.example:3128"


def leads_through_proxy(url: str, **environment: str) -> bool:
    return find_proxy(urlsplit(url), environment) is not None


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ({"https_proxy": PROXY}, "proxy.example"),
        ({"HTTPS_PROXY": PROXY}, "proxy.example"),
        ({"https_proxy": "proxy.example:3128"}, "proxy.example"),
        ({"all_proxy": PROXY}, "proxy.example"),
        ({"ALL_PROXY": PROXY, "https_proxy": "http://other.example"}, "other.example"),
        ({"https_proxy": "", "HTTPS_PROXY": PROXY, "ALL_PROXY": PROXY}, None),
        ({"http_proxy": PROXY}, None),
        ({}, None),
    ],
)
def test_the_variable_of_the_scheme_precedes_all_proxy(environment: dict[str, str], host: str | None) -> None:
    proxy = find_proxy(urlsplit("https://metrics.example.com"), environment)
    assert (proxy.hostname if proxy else None) == host


def test_a_request_to_a_cgi_program_sets_no_proxy() -> None:
    """A client's header `Proxy` becomes HTTP_PROXY there."""
    assert not leads_through_proxy("http://metrics.example.com", HTTP_PROXY=PROXY, REQUEST_METHOD="GET")
    assert leads_through_proxy("http://metrics.example.com", http_proxy=PROXY, REQUEST_METHOD="GET")


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", "https://metrics.example.com"),
        ("example.com", "https://metrics.example.com"),
        (".example.com", "https://metrics.example.com"),
        ("*.example.com", "https://metrics.example.com"),
        ("EXAMPLE.com", "https://Metrics.Example.COM."),
        ("other.org, example.com", "https://example.com"),
        ("other.org example.com:8443", "https://example.com:8443"),
        ("example.com:443", "https://example.com"),
        ("10.0.0.0/8", "https://10.1.2.3"),
        ("10.1.2.3", "https://10.1.2.3:8443"),
        ("10.1.2.3:8443", "https://10.1.2.3:8443"),
        ("fd00::/8", "https://[fd12::1]"),
        ("[fd12::1]", "https://[fd12::1]"),
        ("[fd12::1]:8443", "https://[fd12::1]:8443"),
    ],
)
def test_no_proxy_includes_the_host(no_proxy: str, url: str) -> None:
    assert not leads_through_proxy(url, https_proxy=PROXY, no_proxy=no_proxy)
    assert not leads_through_proxy(url, https_proxy=PROXY, NO_PROXY=no_proxy)


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("", "https://metrics.example.com"),
        (",, ,", "https://metrics.example.com"),
        ("ample.com", "https://metrics.example.com"),
        ("metrics.example.com", "https://example.com"),
        ("example.com:8443", "https://example.com"),
        ("10.0.0.0/8", "https://11.1.2.3"),
        ("10.0.0.0/8", "https://metrics.example.com"),
        ("10.0.0.0/99", "https://10.1.2.3"),
        ("10.0.0.0/8", "https://[fd12::1]"),
        ("fd00::/8", "https://10.1.2.3"),
        ("0.0.0", "https://10.0.0.0.example.org"),
        ("example.com:²", "https://example.com"),
        ("example.com:" + "9" * 5_000, "https://example.com"),
    ],
)
def test_no_proxy_does_not_include_the_host(no_proxy: str, url: str) -> None:
    assert leads_through_proxy(url, https_proxy=PROXY, no_proxy=no_proxy)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://user:secret@proxy.example", "https_proxy is a proxy of the kind https://; only http:// proxies"),
        ("socks5://127.0.0.1:1080", "https_proxy is a proxy of the kind socks5://; only http:// proxies"),
        ("socks5h://127.0.0.1:1080", "https_proxy is a proxy of the kind socks5h://; only http:// proxies"),
        ("http://", "https_proxy is not the address of a proxy"),
        ("http://proxy.example:port", "https_proxy is not the address of a proxy"),
        ("http://[::1", "https_proxy is not the address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused(address: str, reason: str) -> None:
    with pytest.raises(UnsupportedProxyError, match=rf"^{reason}") as caught:
        find_proxy(urlsplit("https://metrics.example.com"), {"https_proxy": address})
    assert "secret" not in str(caught.value)


def test_an_unsupported_proxy_is_named_in_the_outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with run_scripted_server() as server:
        outcome = Client(server.url, "Ledger", "1", data_dir=str(tmp_path)).report_now()
        assert outcome.result is Result.FAILED
        assert "ALL_PROXY is a proxy of the kind socks5://; only http:// proxies are supported" in outcome.reason
        assert server.connections == []
