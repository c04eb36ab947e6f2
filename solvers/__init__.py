"""Numerical solvers: `base` declares the interface, every other file is one PDE."""
