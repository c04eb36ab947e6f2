"""The two kinds of error that the user is shown, as one sentence and without a traceback."""


class StudyError(ValueError):
    """Wrong use: a study, an argument or a file that cannot work as it is. Exit status 2."""


class RunError(RuntimeError):
    """A run that was right to start and could not be finished. Exit status 1."""
