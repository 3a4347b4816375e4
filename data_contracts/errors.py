"""The one exception for wrong input from outside."""


class InputError(Exception):
    """Something given from outside (file, row, field, parameter, argument) is wrong.

    The message is one line for a person: it names the file, row or field and says what to do.
    Commands print it without a traceback and exit with status 2.
    """
