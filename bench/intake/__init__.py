"""Durable snapshots a second: `python -m bench.intake`."""
