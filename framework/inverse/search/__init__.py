"""The exact search for the best entries, and its inner loops."""
