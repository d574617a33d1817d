"""Bearer tokens and rate limits."""
