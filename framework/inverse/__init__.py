"""Which simulation explains what was observed: see docs/explanation/inverse.md."""
