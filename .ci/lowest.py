"""The least versions that pyproject.toml admits, as pins for pip: "jax>=0.8.0" gives jax==0.8.0."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *extras["experiments"], *extras["tests"]]
print(" ".join(name.replace(">=", "==") for name in wanted if ">=" in name))
