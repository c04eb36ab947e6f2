"""The simulations: solver processes, their failures, and decisions on what to simulate."""
