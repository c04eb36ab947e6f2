"""Inverse questions: the simulations of a store that explain an observation.

docs/explanation/inverse.md says how to ask.

    observed/     what was observed, on the solver's grid
    index/        the masks of a store's entries, in files that are searched
    search/       the best entries, exactly
    posterior/    what they say of the parameters, and how far that can be trusted
    refine/       simulations beyond those of the store
    inversions/   a question from end to end; picture.py draws its answer

A part imports those above it. None of them knows a particular solver: masks, regions and spaces are
those that the store's solver declares.
"""
