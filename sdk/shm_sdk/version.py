"""The version of the SDK, sent in the User-Agent header of each request."""

__version__ = "0.1.0"
