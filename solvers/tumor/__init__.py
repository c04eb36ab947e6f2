"""Tumour growth in a brain: tissue, priors, growth models, and images of tumours."""
