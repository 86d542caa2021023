"""What ends a command in one sentence."""


class RunError(Exception):
    """A run, its folder or its data cannot be used as asked; the message is for the user."""


class StoppedError(Exception):
    """A run that was asked to end and has saved; the message is for the user, `code` what the process exits with."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.code = 128 + number  # as shells report a death by that signal
