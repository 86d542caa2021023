"""What a command says while it works, on a terminal and elsewhere."""

import fcntl
import itertools
import os
import pty
import struct
import termios

import pytest

from experiments import progress

REPORT = "epoch 119/120 loss 0.123 W 98.3% W̃ 97.2% density 100%"


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_every_few_seconds_and_ever_fewer(clock, capsys):
    with progress.Progress(10_000) as bar:
        for _ in range(10_000):
            clock[0] += 1
            bar.advance(1)
            bar.tell(REPORT)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"step 1 of 10,000, 1 s: {REPORT}"
    assert lines[-1] == f"step 10,000 of 10,000, 10000 s: {REPORT}"
    seconds = [int(line.split(", ")[-1].split(" s")[0]) for line in lines]
    gaps = [after - before for before, after in itertools.pairwise(seconds[:-1])]
    assert gaps[:10] == [5] * 10
    assert gaps == sorted(gaps)
    assert max(gaps) >= 150


def test_who_is_not_to_speak_says_nothing(clock, capsys):
    with progress.Progress(2, shown=False) as bar:
        clock[0] += 100
        bar.advance(2)
        bar.tell(REPORT)
    assert capsys.readouterr() == ("", "")


def test_the_bar_has_room_in_eighty_columns(monkeypatch, capsys):
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stderr:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        monkeypatch.setattr("sys.stderr", stderr)
        with progress.Progress(100) as bar:
            bar.advance(99)
            bar.tell(REPORT)
        written = os.read(controller, 100_000).decode()
    os.close(controller)
    assert capsys.readouterr().out == ""
    last = written.strip().split("\r")[-1]
    assert len(last.replace("\u0303", "")) <= 80
    assert REPORT in last
    assert "99%|" in last
