"""What the console knows: rows, columns, filter, session. No Textual."""
