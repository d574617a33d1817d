"""Writes the dashboard for Grafana from one list: `python deploy/dashboard.py > deploy/grafana-dashboard.json`.

`make dashboard` runs it. A test compares the file with this list, and the list with the metrics of the server.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

PANEL_WIDTH, PANEL_HEIGHT, DASHBOARD_WIDTH = 8, 7, 24  # in Grafana's grid
RATE = "$__rate_interval"
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart: PromQL by legend. `unit` is one of Grafana's."""

    title: str
    unit: str
    queries: dict[str, str]


def _quantiles(metric: str) -> dict[str, str]:
    """The median and the 99th percentile of a histogram."""
    buckets = f"sum by (le) (rate({metric}_bucket[{RATE}]))"
    return {name: f"histogram_quantile({q}, {buckets})" for name, q in (("p50", 0.5), ("p99", 0.99))}


SECTIONS: dict[str, list[Panel]] = {
    "Fleet (job of /metrics/fleet)": [
        Panel("Active installs", "short", {"{{app}}": 'max by (app) (shm_fleet_installs{status="active"})'}),
        Panel("Counted installs", "short", {"{{app}}": "max by (app) (shm_fleet_counted_installs)"}),
        Panel("Versions", "short", {"{{app}} {{version}}": "max by (app, version) (shm_fleet_version_installs)"}),
        Panel("Metrics", "short", {"{{app}} {{key}}": "max by (app, key) (shm_fleet_metric)"}),
        Panel("Installs of all applications", "short", {"{{status}}": "max by (status) (shm_installs)"}),
    ],
    "Intake": [
        Panel(
            "Snapshots stored", "reqps", {"snapshots a second": f"sum(rate(shm_intake_batch_snapshots_sum[{RATE}]))"}
        ),
        Panel("Snapshots in a batch", "short", _quantiles("shm_intake_batch_snapshots")),
        Panel("Commit of a batch", "s", _quantiles("shm_intake_batch_commit_seconds")),
        Panel("Wait for a batch", "s", _quantiles("shm_intake_batch_wait_seconds")),
        Panel("Queue", "short", {"worker {{worker}}": "max by (worker) (shm_intake_queue_snapshots)"}),
        Panel("Refusals", "reqps", {"{{code}}": f"sum by (code) (rate(shm_refusals_total[{RATE}]))"}),
    ],
    "Requests": [
        Panel(
            "Requests",
            "reqps",
            {"{{handler}} {{status}}": f"sum by (handler, status) (rate(shm_requests_total[{RATE}]))"},
        ),
        Panel("Duration", "s", _quantiles("shm_request_duration_seconds")),
        Panel("Connections of clients", "short", {"worker {{worker}}": "max by (worker) (shm_client_connections)"}),
        Panel("Requests in memory", "bytes", {"worker {{worker}}": "max by (worker) (shm_request_bytes)"}),
        Panel("Unread responses in memory", "bytes", {"worker {{worker}}": "max by (worker) (shm_response_bytes)"}),
        Panel("Subscribers of the feed", "short", {"subscribers": "sum(shm_feed_subscribers)"}),
        Panel(
            "Lag of the feed",
            "s",
            {"slowest": "max(shm_feed_slowest_lag_seconds)", "median": "max(shm_feed_median_lag_seconds)"},
        ),
    ],
    "Database": [
        Panel(
            "Size",
            "bytes",
            {"database": "max(shm_database_size_bytes)", "limit": "min(shm_database_limit_bytes)"},
        ),
        Panel("Growth a day", "bytes", {"growth": "max(shm_database_growth_bytes_per_day)"}),
        Panel("Time until it is full", "s", {"time": "min(shm_database_full_seconds)"}),
        Panel(
            "Connections",
            "short",
            {"{{pool}} {{state}}": "sum by (pool, state) (shm_database_connections)"},
        ),
        Panel("Waiting statements", "short", {"{{pool}}": "sum by (pool) (shm_database_statements_waiting)"}),
        Panel("Lag of the charts", "s", {"lag": "max(shm_series_lag_seconds)"}),
        Panel("Last round of background jobs", "s", {"age": "max(shm_background_round_age_seconds)"}),
    ],
    "Process": [
        Panel("Lag of the event loop", "s", _quantiles("shm_event_loop_lag_seconds")),
        Panel(
            "Open files",
            "short",
            {
                "worker {{worker}}": "max by (worker) (shm_open_files)",
                "limit": "min(shm_open_files_limit)",
            },
        ),
        Panel("Free disk of the data directory", "bytes", {"free": "min(shm_disk_free_bytes)"}),
        Panel("Version", "short", {"{{version}} on {{instance}}": "shm_build_info"}),
    ],
}


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, section in SECTIONS.items():
        panels.append(_row(title, y, len(panels) + 1))
        y += 1
        for index, panel in enumerate(section):
            x = index * PANEL_WIDTH % DASHBOARD_WIDTH
            row_y = y + index * PANEL_WIDTH // DASHBOARD_WIDTH * PANEL_HEIGHT
            panels.append(_panel(panel, x, row_y, len(panels) + 1))
        y += -(-len(section) * PANEL_WIDTH // DASHBOARD_WIDTH) * PANEL_HEIGHT
    source = {"type": "datasource", "name": "source", "label": "Prometheus", "query": "prometheus"}
    return {
        "title": "SHM",
        "uid": "shm",
        "tags": ["shm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def _row(title: str, y: int, number: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": DASHBOARD_WIDTH, "h": 1}
    return {"type": "row", "id": number, "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel, x: int, y: int, number: int) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "id": number,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": PANEL_WIDTH, "h": PANEL_HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
