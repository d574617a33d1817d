"""Shared by the benches: servers, signed fleets, measures of the machine, and the report's format."""
