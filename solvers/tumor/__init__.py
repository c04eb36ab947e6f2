"""Tumour growth in a brain: the tissue, the priors, the growth models and what is imaged of them."""
