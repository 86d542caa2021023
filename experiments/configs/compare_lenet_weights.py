"""LeNet-5 on MNIST: single weights of all layers, from 80 to 99 % zeros.

python -m experiments compare compare_lenet_weights

As `compare_lenet`, but for what is cut; trials judged at 98 %.
"""

import dataclasses

from . import compare_lenet

config = dataclasses.replace(
    compare_lenet.config, level="weight", sparsity=(0.8, 0.9, 0.95, 0.98, 0.99), tune_at=(0.98,)
)
