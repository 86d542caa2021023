"""What a command says while it works: what it is about to do, and how far it is."""

import time

from tqdm import tqdm

INTERVAL = 5.0  # seconds between two lines at first; later a fiftieth of the time so far


def announce(what: str) -> None:
    """A line that is there at once, before what may take seconds."""
    print(f"{what} ...", flush=True)


class Progress:
    """On a terminal a bar that 80 columns are enough for; elsewhere a line every few seconds, the last at the end."""

    def __init__(self, total: int, done: int = 0, shown: bool = True, leave: bool = True):
        layout = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        disable = None if shown else True  # None: where there is no terminal
        self._bar = tqdm(total=total, initial=done, bar_format=layout, disable=disable, dynamic_ncols=True, leave=leave)
        self._lines = shown and self._bar.disable
        self._total, self._done, self._report = total, done, ""
        self._begin = self._said = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self._bar.close()

    def advance(self, steps: int) -> None:
        """So many steps more are done."""
        self._done += steps
        self._bar.update(steps)
        self._say()

    def tell(self, report: str) -> None:
        """How the training stands: beside the bar, or in the lines from now on, of which one comes at once at first."""
        first, self._report = not self._report, report
        self._bar.set_postfix_str(report)
        self._say(first or self._done == self._total)

    def _say(self, now: bool = False) -> None:
        clock = time.monotonic()
        if self._lines and (now or clock - self._said >= max(INTERVAL, (clock - self._begin) / 50)):
            self._said = clock
            place = f"step {self._done:,} of {self._total:,}, {clock - self._begin:.0f} s"
            print(": ".join(filter(None, (place, self._report))), flush=True)
