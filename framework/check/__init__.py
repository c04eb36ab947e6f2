"""Checks that a solver, a surrogate or a buffer, perhaps a user's own, keeps its contract."""
