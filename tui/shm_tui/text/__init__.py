"""Text for the terminal: formatting and sanitizing."""
