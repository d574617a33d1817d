"""From 202 to the subscriber: `python -m bench.feed`."""
