"""The error that is meant for the user at the terminal."""


class CanidsError(Exception):
    """A fault that the user can remove; the message is one line that names file, line or key, and the remedy."""
