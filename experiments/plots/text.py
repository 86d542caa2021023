"""Tables of text for a terminal, and what stands in their cells."""

import statistics
from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]], least: int = 0) -> str:
    """Lines of as many cells each: the first column to the left, where names are, the rest to the right.

    Columns have at least `least` characters, so that tables that are printed line by line stand in line.

    Examples:
      >>> print(aligned([("", "80 %", "90 %"), ("magnitude", "98.1", "9.7")]))
                 80 %  90 %
      magnitude  98.1   9.7
    """
    widths = [max(least, *map(len, column)) for column in zip(*lines, strict=True)]
    aligned_cell = lambda i, cell: cell.rjust(widths[i]) if i else cell.ljust(widths[i])
    return "\n".join("  ".join(aligned_cell(i, cell) for i, cell in enumerate(line)).rstrip() for line in lines)


def spread(values: Sequence[float], scale: int = 100) -> str:
    """Mean ± standard deviation, by default in per cent; of one value it alone.

    Examples:
      >>> spread([0.98, 0.99]), spread([0.98])
      ('98.50 ± 0.71', '98.00')
    """
    scaled = [scale * value for value in values]
    deviation = f" ± {statistics.stdev(scaled):.2f}" if len(scaled) > 1 else ""
    return f"{statistics.mean(scaled):.2f}{deviation}"
