"""Errors, settings, logging, metric keys, slugs and instruments, which all other packages use."""
