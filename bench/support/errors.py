"""The error that ends a bench."""


class Fault(Exception):
    """What the bench would say is not true, or cannot be measured; the message says why."""
