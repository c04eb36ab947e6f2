"""A question from end to end: read what was observed, search, and report the answer."""
