"""The store: every simulation of a study, in one zarr group."""
