"""Of an installed wheel: what is inside, that an import needs JAX and Optax alone, and how long it takes beyond theirs.

Run outside the checkout by the Python of an environment that holds the wheel only; see `make package`.
"""

import statistics
import subprocess
import sys
from importlib import metadata, util

DISTRIBUTION = "parsimony-lbi"
NOT_NEEDED = ["flax", "scipy", "safetensors", "flatbuffers", "orbax", "matplotlib", "sklearn", "tensorflow"]

files = {str(file) for file in metadata.files(DISTRIBUTION) or []}
for needed in ["parsimony/py.typed", "parsimony/structure/__init__.py", "parsimony/theory/__init__.py"]:
    assert needed in files, f"the wheel lacks {needed}"
assert any(file.endswith("licenses/LICENSE") for file in files), "the wheel lacks the licence"
strangers = {file.split("/")[0] for file in files} - {"parsimony"}
assert all(folder.endswith(".dist-info") for folder in strangers), f"the wheel holds {strangers}"
assert "site-packages" in (util.find_spec("parsimony").origin or ""), "parsimony is imported from elsewhere"


# A None in sys.modules makes an import fail. JAX imports some of them itself if they are there, so they go after JAX.
absent = f"import jax, optax, sys; sys.modules |= dict.fromkeys({NOT_NEEDED})"
code = f"{absent}; import parsimony; print(parsimony.__version__)"
version = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
assert version == metadata.version(DISTRIBUTION), version

timed = "import jax, optax, time; start = time.perf_counter(); import parsimony; print(time.perf_counter() - start)"
runs = [subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True, text=True) for _ in range(6)]
taken = sorted(float(run.stdout) for run in runs[1:])  # the first compiles to bytecode
print(f"parsimony {version}, {len(files)} files. Its import takes {statistics.median(taken):.3f} s beyond JAX's and")
print(f"Optax's ({taken[0]:.3f} to {taken[-1]:.3f}, {len(taken)} runs).")
