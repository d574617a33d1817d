"""Reads over instances and snapshots: KPIs, series, versions, lifecycle, export, consistency check."""
