"""Of an installed wheel: what is inside, that an import needs JAX and Optax alone, and how long it takes beyond theirs.

Run outside the checkout by the Python of an environment that holds the wheel only; see `make package`.
"""

import statistics
import subprocess
import sys
from importlib import metadata, util

NOT_NEEDED = ["flax", "scipy", "safetensors", "flatbuffers", "orbax", "matplotlib", "sklearn", "tensorflow"]

files = {str(file) for file in metadata.files("parsimony") or []}
for needed in ["parsimony/py.typed", "parsimony/structure/__init__.py", "experiments/__main__.py"]:
    assert needed in files, f"the wheel lacks {needed}"
assert any(file.endswith("licenses/LICENSE") for file in files), "the wheel lacks the licence"
strangers = {file.split("/")[0] for file in files} - {"parsimony", "experiments"}
assert all(folder.endswith(".dist-info") for folder in strangers), f"the wheel holds {strangers}"
assert "site-packages" in (util.find_spec("parsimony").origin or ""), "parsimony is imported from elsewhere"


def seconds(code: str) -> float:
    timed = f"import time; start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True, text=True).stdout)


# A None in sys.modules makes an import fail. JAX imports some of them itself if they are there, so they go after JAX.
absent = f"import jax, optax, sys; sys.modules |= dict.fromkeys({NOT_NEEDED})"
code = f"{absent}; import parsimony; print(parsimony.__version__)"
version = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
assert version == metadata.version("parsimony"), version

seconds("import jax, optax, parsimony")  # compiles to bytecode
pairs = [(seconds("import jax, optax"), seconds("import jax, optax, parsimony")) for _ in range(11)]
first, beyond, third = statistics.quantiles((more - less for less, more in pairs), n=4)
theirs = statistics.median(less for less, _ in pairs)
print(f"parsimony {version}, {len(files)} files. Its import takes {beyond:.3f} s beyond JAX's and Optax's")
print(f"({first:.3f} to {third:.3f}, quartiles of {len(pairs)} pairs), which takes {theirs:.2f} s.")
