"""A question from end to end: reads what was observed, asks, and tells the answer."""
