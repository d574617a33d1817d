"""The console's widgets, one in each file. Their messages are in `messages`."""
