"""A character-level GPT of 95,664 parameters on the text of Python's own help, along a path of whole units.

python -m experiments train gpt_chars

About two minutes of CPU. The groups are heads, hidden units and channels of the stream; 30 % of each layer are out at
the end, and W is finished inside the support. Expect a perplexity near 4.7 on the test pieces for W = W̃ (4.71, one
seed, Python 3.11.7); without a path 3.63 ± 0.01 (`gpt_chars_dense`).

For a GPU: `--model gpt_micro` (0.8 million parameters) or `--model gpt_mini` (2.7 million) with `--epochs 40`; neither
has been measured.
"""

from ...config import Config

config = Config(
    dataset="python_docs",
    model="gpt_nano",
    epochs=12,
    batch_size=16,
    optimizer="adam",
    learning_rate=5e-3,
    drops=(0.75,),
    clip_norm=1.0,
    groups="units",
    sparsity=0.3,
    open_by=0.6,
)
