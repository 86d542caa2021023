"""Speed and memory: `python -m experiments.bench update`, `structure`, `times`, `minimise`, `data`, `loop`, ...

And of growth: `births`, new units chosen by their gradient; `teacher`, the widths found where the right ones are known.
"""

import tyro

from ..startup import start
from .births import births
from .by_time import by_time
from .data import data
from .loop import loop
from .minimise import minimise
from .recovery import recovery
from .step import step
from .structure import structure
from .sweep import sweep
from .teacher import teacher
from .times import times
from .update import update

if __name__ == "__main__":
    start()
    tyro.extras.subcommand_cli_from_dict(
        {
            "update": update,
            "structure": structure,
            "times": times,
            "by_time": by_time,
            "minimise": minimise,
            "recovery": recovery,
            "data": data,
            "loop": loop,
            "step": step,
            "sweep": sweep,
            "births": births,
            "teacher": teacher,
        },
        prog="python -m experiments.bench",
        description=__doc__,
    )
