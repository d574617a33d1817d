"""Text for the terminal: formatting, widths in cells, and sanitizing."""
