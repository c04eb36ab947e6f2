"""The command line: one file per command, and one way for all of them to end."""
