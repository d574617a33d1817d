"""SHM: the server. Stores signed snapshots in PostgreSQL, and serves the JSON API and the change feed."""

__version__ = "0.1.0"
