"""Simulations beyond those of the store: grown around an answer, or searched from it."""
