"""What `GET /metrics` says, read by the library's own parser."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from tests.support import plain_http
from tests.support.server_process import ServerProcess

LIMIT_S = 20

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Figures:
    """Each value by its name and labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def figures(server: ServerProcess) -> Figures:
    """Those of now, asked for as the admin."""
    response = plain_http.get(f"{server.url}/metrics", headers=server.headers, timeout=LIMIT_S).raise_for_status()
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(response.text)


def value(found: Figures, name: str, **labels: str) -> float:
    """One of them, 0 where it has not been counted yet."""
    return found.get((name, frozenset(labels.items())), 0.0)


class Moved:
    """How far figures moved meanwhile."""

    def __init__(self, before: Figures) -> None:
        self.before = before
        self.after: Figures = {}

    def by(self, name: str, **labels: str) -> float:
        """One of them."""
        return value(self.after, name, **labels) - value(self.before, name, **labels)


@contextmanager
def moving(server: ServerProcess) -> Iterator[Moved]:
    """The figures before and after."""
    moved = Moved(figures(server))
    yield moved
    moved.after = figures(server)
