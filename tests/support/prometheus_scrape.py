"""What `GET /metrics` says, read by the library's own parser."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from tests.support import plain_http
from tests.support.server_process import ServerProcess

LIMIT_S = 20

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse_samples(text: str) -> Samples:
    """Each value by its name and labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def scrape(server: ServerProcess) -> Samples:
    """Those of now, asked for as the admin."""
    response = plain_http.get(f"{server.url}/metrics", headers=server.headers, timeout=LIMIT_S).raise_for_status()
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse_samples(response.text)


def sample_value(found: Samples, name: str, **labels: str) -> float:
    """One of them, 0 where it has not been counted yet."""
    return found.get((name, frozenset(labels.items())), 0.0)


class SampleDeltas:
    """The differences between two scrapes."""

    def __init__(self, before: Samples) -> None:
        self.before = before
        self.after: Samples = {}

    def by(self, name: str, **labels: str) -> float:
        """One of them."""
        return sample_value(self.after, name, **labels) - sample_value(self.before, name, **labels)


@contextmanager
def sample_deltas(server: ServerProcess) -> Iterator[SampleDeltas]:
    """The samples before and after."""
    moved = SampleDeltas(scrape(server))
    yield moved
    moved.after = scrape(server)
