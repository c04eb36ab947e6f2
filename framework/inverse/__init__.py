"""Inverse questions: which simulation explains what was observed."""
