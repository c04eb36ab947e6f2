"""Comparisons: whether training on a stream pays off, by many runs of one study."""
