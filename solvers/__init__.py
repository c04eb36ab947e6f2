"""Numerical solvers: `base` declares what one is, every other file is one PDE."""
