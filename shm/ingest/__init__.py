"""From the bytes that an install sends to a committed row."""
