"""Neural surrogates: `base` declares the interface, every other file is one architecture."""
