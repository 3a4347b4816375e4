"""The one exception for wrong input from outside, and what other errors say in one line."""


class InputError(Exception):
    """Something given from outside (file, row, field, parameter, argument) is wrong.

    The message is one line for a person: it names the file, row or field and says what to do.
    Commands print it without a traceback and exit with status 2.
    """


class JobStopped(BaseException):
    """A job ends early because it was asked to; run again, it goes on. Not an Exception: nothing that handles
    errors may take it for one."""


def first_line(error: BaseException) -> str:
    """First line of an error's message; its type where it has none."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
