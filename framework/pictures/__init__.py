"""What is drawn of simulations and of runs."""
