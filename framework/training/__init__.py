"""What learns: the training loop, scores on held-out simulations, checkpoints, the model."""
