"""Does training on a stream pay: many runs of one study, set side by side."""
