"""The configuration file of the console: contexts, keys, theme and saved views."""
