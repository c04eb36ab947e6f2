"""One run from start to end: its parts, its folder, interruptions, and predictions of its model."""
