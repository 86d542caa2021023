"""The character-level GPT of `gpt_chars` without a path: plain Adam, a trained network for `importance`.

python -m experiments train gpt_chars_dense
python -m experiments importance RUN --scope layer

The coupling is below rounding and nothing enters.
"""

import dataclasses

from . import gpt_chars

config = dataclasses.replace(
    gpt_chars.config, groups="layers", sparsity=None, open_by=0.7, filter_strength=1.0, nu=1e30
)
