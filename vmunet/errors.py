"""The one exception that bad input raises."""


class InputError(Exception):
    """Something a person gave is wrong: a file, a parameter, a checkpoint.

    The message names the file or parameter, says what was expected and what to do. Stages and
    the command line print it without a traceback and exit with status 2.
    """
