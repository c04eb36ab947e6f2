"""Reports of a run: its summary as plain data, the summary in words, and the live display."""
