"""What is kept: every simulation of a study, in one zarr group."""
