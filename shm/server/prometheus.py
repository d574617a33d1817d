"""Export of all workers' instruments in the format of Prometheus. Only this module imports its client library.

Each scrape collects the values from the memory that the workers share, so any worker can serve it.
"""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

import shm
from shm.core.instruments import METRICS, Metric
from shm.core.shared_memory import WorkerSlots

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4  # the one format that every version of Prometheus reads

Sums = dict[tuple[str, ...], list[float]]


class MetricsExporter:
    """Renders the response to a scrape."""

    def __init__(self, slots: WorkerSlots) -> None:
        # The library's global registry also has the collectors of other modules.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_WorkersCollector(slots))

    def text(self) -> bytes:
        """The current values of all metrics as text."""
        return generate_latest(self._registry)


def render_samples(samples: Mapping[Metric, Mapping[tuple[str, ...], float]]) -> bytes:
    """Gauges as text, by the values of their labels."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SamplesCollector(samples))
    return generate_latest(registry)


class _SamplesCollector(Collector):
    def __init__(self, samples: Mapping[Metric, Mapping[tuple[str, ...], float]]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Family]:
        """Called by the library for each scrape."""
        for metric, values in self._samples.items():
            family = GaugeMetricFamily(metric.name, metric.description, labels=metric.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


class _WorkersCollector(Collector):
    def __init__(self, slots: WorkerSlots) -> None:
        self._slots = slots

    def collect(self) -> Iterable[Family]:
        """Called by the library for each scrape."""
        yield InfoMetricFamily("shm_build", "The version of the server.", {"version": shm.__version__})
        sums_by_metric: dict[str, Sums] = {metric.name: {} for metric in METRICS}
        metrics_by_name = {metric.name: metric for metric in METRICS}
        for worker in range(self._slots.count):
            for series in self._slots.slot(worker).series():
                metric = metrics_by_name[series.metric]
                labels = (*series.labels, str(worker)) if is_per_worker(metric) else series.labels
                sums = sums_by_metric[series.metric]
                previous = sums.get(labels, [0.0] * len(series.cells))
                sums[labels] = [first + second for first, second in zip(previous, series.cells, strict=True)]
        for metric in METRICS:
            yield _family(metric, sums_by_metric[metric.name])


def is_per_worker(metric: Metric) -> bool:
    """Whether a metric has a series for each worker: a sum of gauges has less information."""
    return metric.kind == "gauge" and not metric.is_global


def _family(metric: Metric, sums: Sums) -> Family:
    labels = (*metric.labels, "worker") if is_per_worker(metric) else metric.labels
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.description, labels=labels)
        for values, cells in sorted(sums.items()):
            histogram.add_metric(values, list(_buckets(metric.bounds, cells)), cells[-1])
        return histogram
    simple = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = simple(metric.name, metric.description, labels=labels)
    for values, (value,) in sorted(sums.items()):
        family.add_metric(values, value)
    return family


def _buckets(bounds: tuple[float, ...], cells: list[float]) -> Iterator[tuple[str, float]]:
    """Each bucket's upper bound, and the number of observations up to it."""
    cumulative = 0.0
    for bound, count in zip((*map(str, bounds), "+Inf"), cells[:-1], strict=True):
        cumulative += count
        yield bound, cumulative
