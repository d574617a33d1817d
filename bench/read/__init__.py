"""The latency of reads at different sizes: `python -m bench.read`."""
