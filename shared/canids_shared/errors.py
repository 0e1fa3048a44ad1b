"""The error that is meant for the user at the terminal."""

LONGEST = 3000
"""Characters of a message; names and values of a damaged file may be of any length."""


class CanidsError(Exception):
    """A fault that the user can remove; the message is one line that names file, line or key, and the remedy.

    Characters that cannot be printed, such as line ends within a file's name, are written as Python escapes them.
    """

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        half = LONGEST // 2
        super().__init__(line if len(line) <= LONGEST else f"{line[:half]} … {line[-half:]}")


class BusyError(CanidsError):
    """A fault that may have passed at another try, so that a job which ends with it is retried."""
