"""Simulations beyond those of the store: grown around an answer, or found by a search."""
