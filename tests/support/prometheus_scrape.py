"""The samples of `GET /metrics`, parsed by prometheus_client."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support import plain_http
from tests.support.server_process import ServerProcess

TIMEOUT_S = 60
RETRY_INTERVAL_S = 0.2

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse_samples(text: str) -> Samples:
    """The values by name and labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def scrape(server: ServerProcess) -> Samples:
    """Requests the current samples with the admin token. On a busy machine the server may be overloaded for a while."""
    deadline = time.monotonic() + TIMEOUT_S
    while (response := _get(server)).status_code == httpx.codes.SERVICE_UNAVAILABLE and time.monotonic() < deadline:
        time.sleep(RETRY_INTERVAL_S)
    response.raise_for_status()
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse_samples(response.text)


def _get(server: ServerProcess) -> httpx.Response:
    return plain_http.get(f"{server.url}/metrics", headers=server.headers, timeout=TIMEOUT_S)


def sample_value(samples: Samples, name: str, **labels: str) -> float:
    """The value of a sample; 0 if there is none yet."""
    return samples.get((name, frozenset(labels.items())), 0.0)


class SampleDeltas:
    """The differences between the samples of two scrapes."""

    def __init__(self, before: Samples) -> None:
        self.before = before
        self.after: Samples = {}

    def by(self, name: str, **labels: str) -> float:
        """The difference of one sample."""
        return sample_value(self.after, name, **labels) - sample_value(self.before, name, **labels)


@contextmanager
def sample_deltas(server: ServerProcess) -> Iterator[SampleDeltas]:
    """Scrapes before and after the context."""
    deltas = SampleDeltas(scrape(server))
    yield deltas
    deltas.after = scrape(server)
