"""Comparisons: whether training on a stream pays, by many runs of one study."""
