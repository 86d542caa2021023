"""LeNet-300-100 on MNIST, weights: a path that opens by itself, a training for each sparsity.

python -m experiments compare compare_lenet300_paced

The row that `compare_lenet300_equal` lacks, with as many trials at the same sparsity: α and decay are searched, pull
and opening are the defaults of `pm.pace`. 30 runs. Expect 97.90 ± 0.12 % at 98 % zeros and 97.59 ± 0.13 % at 99 %.
"""

import dataclasses

from . import compare_lenet300_equal

config = dataclasses.replace(compare_lenet300_equal.config, methods=("split_lbi_paced_global",), fine_tune=0)
