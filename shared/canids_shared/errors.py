"""Errors meant for the person at the terminal."""


class CanidsError(Exception):
    """Something the user can mend; the message is one line that names file, line or key, and what to do."""
