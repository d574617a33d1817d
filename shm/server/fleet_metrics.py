"""The figures of the fleet as metrics, for `GET /metrics/fleet`."""

from collections.abc import Iterable

from shm.analytics.fleet_figures import AppFigures
from shm.core.instruments import Metric

INSTALLS = Metric("shm_fleet_installs", "gauge", "Installs by application and status.", ("app", "status"))
COUNTED = Metric("shm_fleet_counted_installs", "gauge", "Active installs that the headline counts.", ("app",))
RELEASES = Metric(
    "shm_fleet_version_installs", "gauge", "Installs with a current snapshot, by version.", ("app", "version")
)
METRIC = Metric("shm_fleet_metric", "gauge", "The KPI of a metric over the current snapshots.", ("app", "key"))

FLEET_METRICS = (INSTALLS, COUNTED, RELEASES, METRIC)

Samples = dict[Metric, dict[tuple[str, ...], float]]


def fleet_samples(applications: Iterable[AppFigures]) -> Samples:
    """The values of each metric, by the values of its labels."""
    samples: Samples = {metric: {} for metric in FLEET_METRICS}
    for app in applications:
        for status, number in app.instances.by_status().items():
            samples[INSTALLS][app.slug, status] = number
        samples[COUNTED][(app.slug,)] = app.instances.counted
        for version, number in app.releases.items():
            samples[RELEASES][app.slug, version] = number
        for key, value in app.metrics.items():
            samples[METRIC][app.slug, key] = float(value)
    return samples
