"""Pictures of simulations and of runs."""
