"""Reports of a run: its summary as plain data, words for it, and the live display."""
