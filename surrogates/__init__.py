"""Neural surrogates: `base` declares what one is, every other file is one architecture."""
