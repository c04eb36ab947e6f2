"""The look-up index of a store: its files, who writes them, and what goes into them."""
