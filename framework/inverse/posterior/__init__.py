"""The posterior of an observation, and how far it can be trusted."""
