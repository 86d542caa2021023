"""SIGINT and SIGTERM: before there is something to save they end a process at once, then after a checkpoint."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator


def end_at_once() -> None:
    """From now on SIGINT ends this process with code 130, whatever it is doing; `noticed` makes an exception.

    Python's own KeyboardInterrupt comes when the main thread next runs Python: after a compilation, or in the middle of
    importing an extension that does not survive it. So a thread of its own waits for the signal. It is safe to end
    anywhere: files are written whole or not at all.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.signal(signal.SIGINT, _end)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(read,), daemon=True).start()


def _wait(read: int) -> None:
    while signals := os.read(read, 1):
        if signals[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is _end:
            _end(signal.SIGINT)


def _end(number: int, frame=None) -> None:
    os.write(2, b"\ninterrupted; what was written before is kept\n")
    if processes := sys.modules.get("multiprocessing"):  # those that decode images
        for process in processes.active_children():
            process.kill()
    os._exit(128 + number)


@contextlib.contextmanager
def noticed() -> Iterator[Callable[[], int | None]]:
    """Yields a function that gives the number of the SIGTERM or SIGINT that has come, or None.

    From its first call on the first signal is only noted, and a second one ends the process as before. Until then
    there is nothing to save, and the first one does.
    """
    seen: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    main = threading.current_thread() is threading.main_thread()  # only there does Python take signals
    wakeup: list[int] = []

    def restore() -> None:
        if wakeup:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup.pop(), warn_on_full_buffer=False)

    def note(number: int, frame) -> None:
        seen.append(number)
        restore()

    def asked() -> int | None:
        if main and not wakeup and not seen:
            wakeup.append(signal.set_wakeup_fd(-1))
            for number in before:
                signal.signal(number, note)
        return seen[0] if seen else None

    try:
        yield asked
    finally:
        restore()
