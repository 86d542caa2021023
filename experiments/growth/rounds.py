"""The lines in which the rounds of a growth are kept, and their table.

runs/NAME/rounds.jsonl    a line a round: widths, cost, what is used, held-out accuracy, seconds, and what came next
"""

from pathlib import Path
from typing import Any

from ..plots.text import aligned
from ..runs.files import append_line, read_lines, write_lines


def rounds(directory: Path) -> list[dict[str, Any]]:
    """All lines of a run."""
    return read_lines(directory / "rounds.jsonl")


def resume(directory: Path, number: int) -> list[dict[str, Any]]:
    """Keeps the lines up to a round and returns them."""
    lines = rounds(directory)[:number]
    write_lines(directory / "rounds.jsonl", lines)
    return lines


def append(directory: Path, row: dict[str, Any]) -> None:
    """Adds a line."""
    append_line(directory / "rounds.jsonl", row)


def table(rows: list[dict[str, Any]]) -> str:
    """A line a round; of many sets the least and the greatest width and saturation."""
    lines = [["round", "widths", "parameters", "multiply-adds", "saturation", "held out", "seconds", "compiling"]]
    for row in rows:
        shares, widths = list(row["saturation"].values()), list(row["widths"].values())
        few = len(widths) <= 5
        lines.append(
            [
                str(row["round"]),
                "-".join(map(str, widths)) if few else f"{min(widths)} to {max(widths)}",
                f"{row['parameters']:,}",
                f"{row['macs']:,}",
                " ".join(f"{s:.2f}" for s in shares) if few else f"{min(shares):.2f} to {max(shares):.2f}",
                f"{row['accuracy']:.2%}",
                f"{row['seconds']:.1f}",
                f"{row['compile_seconds']:.1f}",
            ]
        )
    return aligned(lines, least=13)
