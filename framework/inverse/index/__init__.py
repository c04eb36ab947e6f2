"""The look-up index of a store: its files, their writer, and what goes into them."""
