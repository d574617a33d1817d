"""The console's start, its answers to keys, and what it costs: `python -m bench.console`."""
