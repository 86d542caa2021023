"""Command line: `python -m experiments COMMAND [CONFIG] [--field value]`."""

if __name__ == "__main__":
    from .training import signals

    signals.end_at_once()  # before the imports that take time

import sys
import textwrap
from collections.abc import Callable
from typing import Any

import tyro

from . import cli, configs
from .comparison.config import Comparison
from .config import Config
from .errors import RunError, StoppedError, unknown
from .growth.config import Grow
from .progress import announce
from .startup import start

DATASETS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "imagenet2012")
USAGE = """usage: python -m experiments COMMAND [CONFIG] [--field value]

  train [CONFIG]         train a network along the path
  grow [CONFIG]          grow a network from a few units a layer to the size
                         that it needs
  compare [CONFIG]       tune methods alike, train each with several seeds
  prune RUN              cut a run to several sparsities, by several orders,
                         with and without fine-tuning
  importance RUN...      cut the units of trained networks by several criteria,
                         with and without fine-tuning
  ticket RUN             retrain inside the mask of an early epoch; compared
                         with dense and with a random mask
  compact RUN            remove units of a run: a smaller, faster model with
                         the same outputs, saved and exported
  family RUN             several sizes of a run, each inside the next, tuned as
                         one or in turn: a table to choose from
  stop RUN               where a stopping rule ends a recorded path
  report RUN...          one HTML page about one or more runs
  report compare RUN...  picture and Markdown table of comparisons
  prepare DATASET        download and prepare a TFDS data set once

{configurations}

`python -m experiments COMMAND --help` lists every option; of a configuration:
`python -m experiments train CONFIG --help`.
`python -m experiments.bench --help`: speed and memory.
"""


def main(words: list[str]) -> int:
    """Runs a command; the exit code: 0, 1 for a run that could not be done, 2 for an invalid command line."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE.format(configurations="\n".join(map(_listed, [*CONFIGURED, "prepare"]))))
        return 0
    command, rest = words[0], words[1:]
    known = [*CONFIGURED, *ON_RUNS, "prepare"]
    if command not in known:
        return _unknown("command", command, known)
    start()
    try:
        if command in CONFIGURED:
            return _configured(command, rest)
        return _prepare(rest) if command == "prepare" else _on_runs(command, rest)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except StoppedError as error:
        print(error, file=sys.stderr)
        return error.code
    except OSError as error:  # of the disk
        print(f"error: {error}; what was written before is kept", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; start it again with the same --run-dir to resume", file=sys.stderr)
        return 130


# JAX and the rest take seconds to import: each command is imported when it is called, so that --help need not wait.


def _train(name: str, config: Any) -> None:
    from .commands.train import train

    train(name, config)


def _grow(name: str, config: Any) -> None:
    from .commands.grow import grow

    grow(name, config)


def _compare(name: str, config: Any) -> None:
    from .commands.compare import compare

    compare(name, config)


def _prune() -> tuple[type, Callable]:
    from .commands.prune import PruneOptions, prune

    return PruneOptions, prune


def _importance() -> tuple[type, Callable]:
    from .commands.importance import ImportanceOptions, importance

    return ImportanceOptions, importance


def _ticket() -> tuple[type, Callable]:
    from .commands.ticket import TicketOptions, ticket

    return TicketOptions, ticket


def _compact() -> tuple[type, Callable]:
    from .commands.compact import CompactOptions, compact

    return CompactOptions, compact


def _family() -> tuple[type, Callable]:
    from .commands.family import FamilyOptions, family

    return FamilyOptions, family


def _stop() -> tuple[type, Callable]:
    from .commands.stop import StopOptions, stop

    return StopOptions, stop


def _report() -> tuple[type, Callable]:
    from .commands.report import ReportOptions, report

    return ReportOptions, report


def _report_compare() -> tuple[type, Callable]:
    from .comparison.table import ReportCompareOptions, report_compare

    return ReportCompareOptions, report_compare


# command: (class of its configuration, the one it takes where none is named, what it does)
CONFIGURED: dict[str, tuple[type, str, Callable]] = {
    "train": (Config, "digits", _train),
    "grow": (Grow, "grow_digits", _grow),
    "compare": (Comparison, "compare_digits", _compare),
}
# command: gives (class of its options, what it does)
ON_RUNS = {
    "prune": _prune, "importance": _importance, "ticket": _ticket, "compact": _compact, "family": _family,
    "stop": _stop, "report": _report,
}  # fmt: skip


def _configured(command: str, words: list[str]) -> int:
    """A command with a configuration, whose fields the remaining arguments may change."""
    kind, default, function = CONFIGURED[command]
    known = configs.names(command)
    name, fields = (words[0], words[1:]) if words and not words[0].startswith("-") else (default, words)
    if name not in known:
        return _unknown("configuration", name, known)
    module = configs.load(command, name)
    program = f"python -m experiments {command} {name}"
    config = cli.configured(kind, module.config, fields, program, module.__doc__ or "")
    _announce_loading()
    function(name, config)
    return 0


def _on_runs(command: str, words: list[str]) -> int:
    """A command on runs that were trained before."""
    find = ON_RUNS[command]
    if command == "report" and words[:1] == ["compare"]:
        command, words, find = "report compare", words[1:], _report_compare
    _announce_loading()
    options, function = find()
    function(tyro.cli(options, args=words, prog=f"python -m experiments {command}"))
    return 0


def _prepare(words: list[str]) -> int:
    from .commands.prepare import PrepareOptions, prepare

    options = tyro.cli(PrepareOptions, args=words, prog="python -m experiments prepare")
    if options.dataset not in DATASETS:
        return _unknown("data set", options.dataset, DATASETS)
    prepare(options)
    return 0


def _announce_loading() -> None:
    if "jax" not in sys.modules:
        announce("loading JAX")


def _listed(command: str) -> str:
    """What a command takes, in lines of 80 columns, and its default."""
    if command == "prepare":
        return _lines("data sets to prepare: " + ", ".join(DATASETS))
    default = CONFIGURED[command][1]
    return _lines(f"configurations of {command} (default {default}): " + ", ".join(configs.names(command)))


def _lines(text: str) -> str:
    return textwrap.fill(text, 78, initial_indent="  ", subsequent_indent="    ")


def _unknown(kind: str, word: str, known) -> int:
    print(unknown(kind, word, known), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
