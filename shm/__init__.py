"""SHM: the server. Takes signed snapshots into PostgreSQL, answers the JSON API, tells the change feed."""

__version__ = "0.1.0"
