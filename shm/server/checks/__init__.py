"""Checks of the set-up of a server, for `shm doctor` and for the start of `shm serve`."""
