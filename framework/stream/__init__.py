"""What arrives: blocks become samples, which wait in a buffer to be drawn."""
