"""Tumour growth in a brain: tissue, priors, growth models, and what is imaged of them."""
