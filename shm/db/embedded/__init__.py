"""The embedded PostgreSQL of a data directory: its creation, start, shutdown, restart, files and user."""
