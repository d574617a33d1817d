"""The version of the SDK, which each request names."""

__version__ = "0.1.0"
