"""Badges and the front page: what everybody may see, escaped, from totals."""

from collections.abc import Iterator
from decimal import Decimal
from xml.etree import ElementTree

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.server import badge_images
from tests.support import plain_http
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

COUNT = 6
ODD_KEY = "<b>&\"'"
METRICS = {"orders": 411, "instances": 3, "beta": True, "secret": 9, "hidden": 1, "locale": "fr", ODD_KEY: 2}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with three applications, whose metrics are public but for one.

    They have six installs, five with a version each, and two.
    """
    with module_server(postgres, tmp_path_factory.mktemp("badges")) as (server, _):
        for number in range(COUNT):
            Install(server.url, app_name="Shop", app_version="2.0" if number else "1.9").enroll(METRICS)
        Install(server.url, app_name="Shop", environment="ci").enroll({"rare": 7})
        for number in range(5):
            Install(server.url, app_name="Various", app_version=f"2.{number}").enroll()
        for _ in range(2):
            Install(server.url, app_name="Few", app_version="3.1").enroll({"orders": 1})
        public = [key for key in METRICS if key != "secret"] + ["rare"]
        for slug in ("shop", "few"):
            change = {"public_metrics": public, "overrides": {"hidden": {"hidden": True}}}
            url = f"{server.url}/api/v1/admin/applications/{slug}"
            plain_http.put(url, json=change, headers=server.headers).raise_for_status()
        yield server


def get(server: ServerProcess, path: str, **headers: str) -> httpx.Response:
    """A request without a token."""
    return plain_http.get(f"{server.url}{path}", headers=headers)


def texts(image: bytes) -> list[str]:
    """The label and the value of a badge."""
    return [element.text or "" for element in ElementTree.fromstring(image).iter(f"{SVG}text")]  # noqa: S314 - our own


@pytest.mark.parametrize(
    ("path", "label", "value"),
    [
        ("shop/instances", "instances", "6"),
        ("shop/version", "version", "2.0"),
        ("shop/metric/orders", "orders", "2.5k"),
        ("shop/metric/instances", "instances", "18"),
        ("shop/metric/beta", "beta", "6"),
        ("shop/metric/%3Cb%3E%26%22%27", ODD_KEY, "12"),
        ("shop/combined?metric=orders", "adoption", "2.5k / 6"),
        ("shop/instances?label=%3Cscript%3E&color=%22%2F%3E&v=2", "<script>", "6"),
        ("shop/metric/rare", "rare", "too few installs"),
        ("shop/metric/secret", "error", "no public metric"),
        ("shop/metric/hidden", "error", "no public metric"),
        ("shop/metric/locale", "error", "no public metric"),
        ("shop/metric/unknown", "error", "no public metric"),
        ("shop/combined", "error", "no public metric"),
        ("various/instances", "instances", "5"),
        ("various/version", "version", "too few installs"),
        ("few/instances", "instances", "too few installs"),
        ("few/version", "version", "too few installs"),
        ("few/metric/orders", "orders", "too few installs"),
        ("few/combined?metric=orders", "adoption", "too few installs"),
        ("nobody/version", "error", "unknown application"),
        ("Shop/instances", "error", "unknown application"),
        ("%00%C3%A9/combined", "error", "unknown application"),
        ("shop/instances/", "instances", "6"),
        ("shop/version/", "version", "2.0"),
        ("shop/metric/orders/", "orders", "2.5k"),
    ],
)
def test_a_badge_shows_what_is_public(server: ServerProcess, path: str, label: str, value: str) -> None:
    response = get(server, f"/badge/{path}")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "image/svg+xml")
    assert response.headers["Cache-Control"] == "public, max-age=300"
    assert texts(response.content) == [label, value]


def test_a_conditional_request_is_answered_without_the_image(server: ServerProcess) -> None:
    first = get(server, "/badge/shop/instances")
    again = get(server, "/badge/shop/instances", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert get(server, "/badge/shop/version", **{"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_the_color_is_that_of_the_query_or_of_the_value(server: ServerProcess) -> None:
    assert 'fill="#2563c9"' in get(server, "/badge/shop/instances?color=%232563C9").text
    assert f'fill="{badge_images.YELLOW}"' in get(server, "/badge/shop/instances?color=red").text
    assert f'fill="{badge_images.GREEN}"' in get(server, "/badge/shop/metric/orders").text
    assert f'fill="{badge_images.RED}"' in get(server, "/badge/nobody/version").text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *(("0", "0"), ("999", "999"), ("12.34", "12.3"), ("12.04", "12"), ("-0.01", "0"), ("1000", "1.0k")),
        *(("1234", "1.2k"), ("999949", "999.9k"), ("999950", "1.0M"), ("999999999", "1.0B"), ("-4200", "-4.2k")),
        *(("1500000000", "1.5B"), ("999.96", "1.0k")),
    ],
)
def test_numbers_are_short(number: str, text: str) -> None:
    assert badge_images.format_number(Decimal(number)) == text


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_makes_a_valid_image(label: str, value: str) -> None:
    root = ElementTree.fromstring(badge_images.render(label, value, badge_images.RED))  # noqa: S314 - our own
    shown = ["".join(character for character in text if character.isprintable()) for text in (label, value)]
    most = badge_images.MAX_TEXT
    expected = [text if len(text) <= most else f"{text[: most - 1]}…" for text in shown]
    assert [element.text or "" for element in root.iter(f"{SVG}text")] == expected
    assert {element.tag for element in root.iter()} == {f"{SVG}{tag}" for tag in ("svg", "title", "rect", "g", "text")}


def test_the_front_page_is_html_for_a_browser_and_json_for_a_program(server: ServerProcess) -> None:
    page = get(server, "/", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "shm console --server" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    document = get(server, "/", Accept="*/*")
    assert document.headers["Content-Type"] == "application/json"
    for name in ("api", "health"):
        address = document.json()[name]
        assert address in page.text
        assert get(server, f"/{address}").status_code == 200
    for response in (page, document):
        assert response.headers["Vary"] == "Accept"
        assert "Shop" not in response.text
