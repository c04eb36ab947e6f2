"""The command line: one file a command, and one way for all of them to end."""
