"""LeNet-5 on MNIST: single weights of all layers, from 80 to 99 % zeros.

python -m experiments compare compare_lenet_weights

As `compare_lenet`, but for what is cut; trials judged at 98 %.
120 runs: 6 minutes of one H200 that others used too. Expect 98.38 % at 98 % zeros for Split LBI with fine-tuning,
98.84 % for `linbreg`.
"""

import dataclasses

from . import compare_lenet

config = dataclasses.replace(
    compare_lenet.config, level="weight", sparsity=(0.8, 0.9, 0.95, 0.98, 0.99), tune_at=(0.98,)
)
