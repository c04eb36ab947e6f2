"""What is asked: a study's sections, its design, its identity, and its solver and problem.

Imports neither ray, zarr nor torch, so that help, lists and mistakes in keys answer at once.
"""
