"""What an observation says of the parameters, and how far that can be trusted."""
