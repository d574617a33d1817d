"""What reading costs at different sizes: `python -m bench.read`."""
