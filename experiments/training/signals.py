"""SIGTERM and SIGINT, noticed between two calls of the step, so that a run ends with a checkpoint."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def noticed() -> Iterator[Callable[[], int | None]]:
    """Within it the first SIGTERM or SIGINT is only noted, and a second one ends the process as ever.

    Yields a function that gives the number of the signal, or None.
    """
    if threading.current_thread() is not threading.main_thread():  # only there does Python take signals
        yield lambda: None
        return
    seen: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame) -> None:
        seen.append(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: seen[0] if seen else None
    finally:
        restore()
