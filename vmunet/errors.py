"""The exception that wrong input raises."""


class InputError(Exception):
    """A user's input is wrong: a file, a parameter or a checkpoint.

    The message names the file or parameter, says what was expected and what to do. Stages and
    the command line print it without a traceback and exit with status 2.
    """
