"""The character-level GPT of `gpt_chars` without a path: plain Adam, a trained network for `importance`.

python -m experiments train gpt_chars_dense
python -m experiments importance RUN --scope layer

The coupling is below rounding and nothing enters. Expect, over three seeds, a perplexity of 3.63 ± 0.01 on the test
pieces (Python 3.11.7); without half of the units, tuned for two epochs, 7.23 ± 0.11 by Taylor.
"""

import dataclasses

from . import gpt_chars

config = dataclasses.replace(
    gpt_chars.config, groups="layers", sparsity=None, open_by=0.7, filter_strength=1.0, nu=1e30
)
