"""Versions that data carries; imports nothing, as solvers' processes need them too."""

# The format of a store: its arrays and its attributes.
STORE = 2
# The formats of a checkpoint and of a model's folder.
CHECKPOINT = 2
MODEL = 2
# The random streams and the priors: changes when the same seed gives other numbers, or a prior
# other simulations. Data of another version is read; nothing is added to it.
STREAMS = 2
