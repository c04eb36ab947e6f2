"""Versions that data carries; imports nothing, as solvers' processes need them too."""

# The format of a store: its arrays and its attributes.
STORE = 2
# The formats of a checkpoint and of a model's folder.
CHECKPOINT = 3
MODEL = 3
# The version of the random streams and the priors: it changes when the same seed gives other
# numbers, or a prior other simulations. Data of another version can be read, but nothing is added
# to it.
STREAMS = 2
