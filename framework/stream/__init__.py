"""The stream: blocks arrive, become samples, and wait in a buffer to be drawn."""
