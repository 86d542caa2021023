"""The commands that the documents give: each can be called as it is written, and those on the demo's run do run."""

import functools
import inspect
import re
import shlex
from pathlib import Path

import pytest
import tyro

from experiments import __main__ as cli
from experiments import configs
from experiments.bench import (
    births,
    by_time,
    data,
    loop,
    minimise,
    recovery,
    step,
    structure,
    sweep,
    teacher,
    times,
    update,
)
from helpers.processes import finished, start

ROOT = Path(__file__).parents[2]
TEXTS = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "experiments" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
} | {
    f"{kind}/{name}": inspect.getdoc(configs.load(kind, name)) or ""
    for kind in cli.CONFIGURED
    for name in configs.names(kind)
}
BENCH = {"update": update.update, "structure": structure.structure, "data": data.data, "loop": loop.loop}
BENCH |= {"sweep": sweep.sweep, "step": step.step, "minimise": minimise.minimise}
BENCH |= {"times": times.times, "by_time": by_time.by_time, "births": births.births, "teacher": teacher.teacher}
BENCH |= {"recovery": recovery.recovery}


def commands(text: str) -> list[str]:
    """What follows `python -m ` in the lines of a text, in its code spans, and in the columns of tables headed so."""
    found = re.findall(r"^(?:srun )?python -m (experiments[^#\n]*)", text, re.M)
    found += re.findall(r"`python -m (experiments[^`]*)`", text)
    for head, body in re.findall(r"^(\|.*`python -m experiments` \|.*)\n\|[-| ]+\|\n((?:\|.*\n)+)", text, re.M):
        column = [cell.strip() for cell in head.split("|")].index("`python -m experiments`")
        for line in body.splitlines():
            found += [f"experiments {span}" for span in re.findall(r"`([^`]+)`", line.split("|")[column])]
    form = re.compile(r"\[|\bCOMMAND\b")  # the form of a command is none that can be called
    return [words.strip() for words in found if " " in words.strip() and not form.search(words)]


ALL = [(where, words) for where, text in TEXTS.items() for words in dict.fromkeys(commands(text))]
ON_DEMO = [words for where, words in ALL if where == "experiments/README.md" and "runs/digits" in words]


def parse(module: str, words: list[str]) -> object:
    """What a command would be called with; `SystemExit` where the command line is wrong."""
    if module == "experiments.bench":
        command = functools.wraps(BENCH[words[0]])(lambda *args, **options: options)
        return tyro.cli(command, args=words[1:])
    if words[0] in cli.CONFIGURED:
        named = len(words) > 1 and not words[1].startswith("-")
        name, fields = (words[1], words[2:]) if named else (cli.CONFIGURED[words[0]][1], words[1:])
        assert name in configs.names(words[0])
        return tyro.cli(cli.CONFIGURED[words[0]][0], default=configs.load(words[0], name).config, args=fields)
    if words[0] == "prepare":
        assert words[1] in cli.DATASETS
        return words
    if words[:2] == ["report", "compare"]:
        return tyro.cli(cli._report_compare()[0], args=words[2:])
    return tyro.cli(cli.ON_RUNS[words[0]]()[0], args=words[1:])


@pytest.mark.parametrize(("where", "words"), ALL, ids=lambda value: value.replace("/", "_"))
def test_a_command_of_the_documents_can_be_called_as_it_is_written(where, words, capsys):
    module, *rest = shlex.split(words)
    if rest == ["--help"]:
        assert cli.main(rest) == 0
    elif "--help" in rest:
        with pytest.raises(SystemExit, match="0"):
            parse(module, rest)
    else:
        assert parse(module, rest)


def test_every_page_on_commands_gives_some():
    """Of a page without any the test above would say nothing."""
    counts = {where: sum(page == where for page, _ in ALL) for where in TEXTS}
    assert counts["README.md"] >= 10
    assert counts["experiments/README.md"] >= 20
    assert counts["docs/results.md"] >= 20
    assert all(counts[f"{kind}/{name}"] for kind in cli.CONFIGURED for name in configs.names(kind))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The run of `make demo`, in a process of one device, and its folder, in which we are: runs/digits is there."""
    checkout = tmp_path_factory.mktemp("checkout")
    finished(start(checkout / "runs" / "digits", words=("train",)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(checkout)
        yield checkout / "runs" / "digits"


@pytest.mark.parametrize("words", ON_DEMO)
def test_a_command_on_the_run_of_the_demo_runs(demo, words, capsys):
    assert cli.main(shlex.split(words)[1:]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def test_the_folder_of_the_demo_holds_what_is_listed(demo):
    """And nothing else, but for what the commands on it have written since."""
    section = TEXTS["experiments/README.md"].split("## What a run folder holds\n")[1].split("\n## ")[0]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`([\w.]+)", row)}
    written = re.compile(r"\.lock|prune|importance|ticket|compact|family|stop|report")
    held = {file.name for file in demo.iterdir() if not written.match(file.name)}
    assert listed - held == {"rounds.jsonl", "widths.png", "results.jsonl", "perplexity.png"}  # of others
    assert held <= listed
