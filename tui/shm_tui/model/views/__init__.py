"""The views: each loads its data from the API and turns them into lines of text. Nothing here imports Textual."""
