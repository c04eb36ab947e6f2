"""The look-up index of a store: its files, their writer, and their contents."""
