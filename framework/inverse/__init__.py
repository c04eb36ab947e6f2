"""Inverse questions: which of the stored simulations explains what was observed."""
