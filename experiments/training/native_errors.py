"""What JAX's C++ says when one of several processes has died, as one sentence.

The C++ ends the process by itself, with a stack of addresses and no way for Python to take part. So what it writes to
the file descriptor of stderr goes through a process of its own, this file, which outlives it.
"""

import os
import re
import subprocess
import sys

SENTENCE = (
    "error: another of the processes that train together has died, or its network, so this one ends; start all of them "
    "again with the same --run-dir to resume."
)
DEATH = "Terminating process because the JAX distributed service detected fatal errors"
HEAD = re.compile(r"[IWEF]\d{4} ")
NOISE = ("coordination_service.cc", "coordination_service_agent.cc")


def tell_in_a_sentence() -> None:
    """From now on; Python's own sys.stderr goes where it went, a terminal perhaps."""
    direct = os.dup(2)
    read, write = os.pipe()
    subprocess.Popen(
        [sys.executable, "-I", "-S", __file__], stdin=read, stdout=direct, stderr=direct, start_new_session=True
    )
    os.close(read)
    os.dup2(write, 2)
    os.close(write)
    sys.stderr = os.fdopen(direct, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)


def _pass_on() -> None:
    noise = False
    for line in sys.stdin.buffer:
        text = line.decode(errors="replace")
        if DEATH in text:
            print(SENTENCE, flush=True)
            sys.stdin.buffer.read()  # the rest is about this death
        if HEAD.match(text):  # a message may have several lines
            noise = any(file in text for file in NOISE)
        if not noise and DEATH not in text:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    _pass_on()
