"""How long honest installs wait during attacks: `python -m bench.attack`."""
