"""Which simulation explains what was observed: see docs/inverse.md."""
