"""Command line: `python -m experiments COMMAND [CONFIG] [--field value]`."""

import difflib
import functools
import importlib
import sys
from pathlib import Path

import tyro

from . import configs
from .comparison import Comparison
from .config import Config, Grow
from .errors import RunError
from .interrupts import StoppedError

DATASETS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "imagenet2012")
USAGE = """usage: python -m experiments COMMAND [CONFIG] [--field value]

  train [CONFIG]     train a network along the path (CONFIG: {configs}; default digits)
  grow [CONFIG]      grow a network from a few units a layer to the right size (CONFIG: {growing}; default grow_digits)
  compare [CONFIG]   tune methods alike, train each with several seeds (CONFIG: {comparing}; default compare_digits)
  prune RUN          cut a run to several sparsities, by several orders, with and without fine-tuning
  ticket RUN         retrain inside the mask of an early epoch; compared with dense and with a random mask
  compact RUN        remove units of a run: a smaller, faster model with the same outputs, saved and exported
  stop RUN           where a stopping rule ends a recorded path
  report RUN...      one HTML page about one or more runs, with all pictures inside
  report compare RUN...   picture and Markdown table of comparisons
  prepare DATASET    download and prepare a TFDS data set once ({datasets})

`python -m experiments COMMAND --help` lists every option (of a configuration: `train CONFIG --help`).
`python -m experiments.bench --help`: speed and memory.
"""


def main(words: list[str]) -> int:
    """Runs a command; the exit code: 0, 1 for a run that could not be done, 2 for words that make no sense."""
    if not words or words[0] in ("-h", "--help"):
        print(
            USAGE.format(
                configs=", ".join(configs.names(Config)),
                growing=", ".join(configs.names(Grow)),
                comparing=", ".join(configs.names(Comparison)),
                datasets=", ".join(DATASETS),
            )
        )
        return 0
    on_runs = {name: functools.partial(_on_runs, name) for name in ("prune", "ticket", "compact", "stop", "report")}
    kinds = {"train": Config, "grow": Grow, "compare": Comparison}
    configured = {name: functools.partial(_configured, name, kind) for name, kind in kinds.items()}
    commands = {**configured, **on_runs, "prepare": _prepare}
    if words[0] not in commands:
        return _unknown("command", words[0], commands)
    try:
        return commands[words[0]](words[1:])
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


def _configured(command: str, kind: type, words: list[str]) -> int:
    """A command with a configuration: a function of its name in a module of its name."""
    defaults = {"train": "digits", "grow": "grow_digits", "compare": "compare_digits"}
    known, default = configs.names(kind), defaults[command]
    name, fields = (words[0], words[1:]) if words and not words[0].startswith("-") else (default, words)
    if name not in known:
        return _unknown("configuration", name, known)
    module = configs.load(name)
    program = f"python -m experiments {command} {name}"
    config = tyro.cli(kind, default=module.config, args=fields, prog=program, description=module.__doc__)
    # JAX and the rest take seconds to import; --help need not wait
    getattr(importlib.import_module(f".{command}", __package__), command)(name, config)
    return 0


def _on_runs(command: str, words: list[str]) -> int:
    """A command on runs: a module of its name with its options (`Prune`) and what it does (`prune`)."""
    if command == "report" and words[:1] == ["compare"]:
        from .comparison_table import Compare, report_compare

        report_compare(tyro.cli(Compare, args=words[1:], prog="python -m experiments report compare"))
        return 0
    module = importlib.import_module(f".{command}", __package__)
    options = tyro.cli(getattr(module, command.capitalize()), args=words, prog=f"python -m experiments {command}")
    getattr(module, command)(options)
    return 0


def _prepare(words: list[str]) -> int:
    from . import data

    def arguments(dataset: tyro.conf.Positional[str], /, data_dir: Path | None = None):
        return dataset, data_dir

    dataset, data_dir = tyro.cli(arguments, args=words, prog="python -m experiments prepare")
    if dataset not in DATASETS:
        return _unknown("data set", dataset, DATASETS)
    print(f"prepared in {data.prepare(dataset, data_dir)}")
    return 0


def _unknown(kind: str, word: str, known) -> int:
    (near,) = difflib.get_close_matches(word, known, n=1, cutoff=0)
    print(f"unknown {kind} {word!r}; did you mean {near!r}? Known: {', '.join(known)}.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
