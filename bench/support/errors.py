"""The error that ends a bench."""


class InvalidRun(Exception):
    """A figure would be wrong or cannot be measured; the message says why."""
