"""Errors that comigs raises on purpose; the CLI prints them as one line."""


class ComigsError(Exception):
    """The run failed; the message is one clear line."""

    exit_code = 1


class BadInput(ComigsError):
    """The user's input is wrong; the message names the field, the value and the fix."""

    exit_code = 2


def one_line(error: BaseException) -> str:
    """`TypeName: message`, whatever line breaks the message holds."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
