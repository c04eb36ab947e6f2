"""The exact search for the best entries, by masks and by fields."""
