"""Training: the loop, scores on held-out simulations, checkpoints, the trained model."""
