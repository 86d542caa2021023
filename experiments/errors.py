"""What ends a command in one sentence."""


class RunError(Exception):
    """A run, its folder or its data cannot be used as asked; the message is for the user."""
