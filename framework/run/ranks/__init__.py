"""The training ranks of a run: one in this process, or several in processes of their own."""
