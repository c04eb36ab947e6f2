"""Whether a solver, a surrogate or a buffer, perhaps a user's own, is what it has to be."""
