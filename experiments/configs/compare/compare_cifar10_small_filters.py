"""ResNet-8 on CIFAR-10 at 16×16, filters, half and 70 % of them zero, every cell at the cost of one short training.

python -m experiments compare compare_cifar10_small_filters --minutes 30

As `compare_cifar10_small`, with network slimming, and with `narrow`: networks of the widths that are left, trained from
scratch for as many steps (with projected shortcuts, since the widths no longer double). Filters whose channels are
added to one stream are cut one by one, so all but `narrow` keep most of the streams' multiply-adds; and a share of the
filters is one of the weights only where layers lose alike. Tuned on held-out images, two trials at 70 %: `linbreg`, and
the strength of slimming's ℓ1, whose published 1e-4 is for 160 epochs.
"""

import dataclasses

from . import compare_cifar10_small

config = dataclasses.replace(
    compare_cifar10_small.config,
    level="group",
    methods=(
        "magnitude",
        "split_lbi_paced",
        "split_lbi_paced_global",
        "one_shot",
        "gradual",
        "linbreg",
        "slimming",
        "narrow",
    ),
    sparsity=(0.5, 0.7),
    tune_at=(0.7,),
)
