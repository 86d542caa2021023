"""TensorBoard's event files, beside the lines of JSON that say the same."""

import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore  (made from a description)
from tensorboardX.proto.summary_pb2 import Summary  # type: ignore  (made from a description)

from ..metrics import metric_in


class Events:
    """Scalars of a run in RUN/events; after a resume those behind the checkpoint are declared void."""

    def __init__(self, directory: Path, step: int):
        folder = directory / "events"
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / f"step{step}"))  # written at once: a full disk shows where it is full
        if step:
            restart = {"session_log": SessionLog(status=SessionLog.START)}
            self._writer.write_event(Event(wall_time=time.time(), step=step + 1, **restart))

    def append(self, line: dict[str, Any]) -> None:
        """A line of the curve: each number by its name, and the density of each parameter."""
        metric = metric_in(line).name
        numbers = {name: line[name] for name in ("loss", metric, f"sparse_{metric}", "total_density", "time", "epoch")}
        numbers |= {f"density/{name}": value for name, value in line["density"].items()}
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        event = Event(wall_time=time.time(), step=line["step"], summary=Summary(value=values))
        self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
