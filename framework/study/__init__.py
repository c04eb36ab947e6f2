"""A study: its sections, its design, its identity, and its solver and problem.

Imports neither ray, zarr nor torch, so that help, lists and complaints about keys come at once.
"""
