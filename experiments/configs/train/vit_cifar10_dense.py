"""The ViT of `vit_cifar10` without a path: plain Adam, a trained network for `importance`.

python -m experiments train vit_cifar10_dense
python -m experiments importance RUN --scope layer

The coupling is below rounding and nothing enters.
"""

import dataclasses

from . import vit_cifar10

config = dataclasses.replace(
    vit_cifar10.config, groups="layers", sparsity=None, open_by=0.7, filter_strength=1.0, nu=1e30
)
