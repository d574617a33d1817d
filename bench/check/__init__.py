"""`shm check` of a large fleet beside a running server."""
