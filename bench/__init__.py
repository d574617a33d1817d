"""Benches: `python -m bench.intake`, `bench.read` and `bench.feed` each print what was measured."""
