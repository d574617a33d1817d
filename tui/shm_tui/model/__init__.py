"""The console's data: rows, columns, filter, session, tiles. Nothing here imports Textual."""
