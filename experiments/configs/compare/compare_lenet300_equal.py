"""LeNet-300-100 on MNIST, weights, at equal cost, with κ searched for Split LBI as for `linbreg`.

python -m experiments compare compare_lenet300_equal

As `compare_lenet300`, but where one run gives every sparsity, 9 epochs of fine-tuning follow each cut: 12 + 5·9 = 57
epochs a seed, where the others train five times 12 = 60. The ranges are narrower, around what did well in 59 trials
with seed 1000 that printed validation accuracy only (37 of Split LBI, 12 of `linbreg`, 5 of each of the others). Fixed
before any test accuracy was read. 83 runs and their fine-tuning: an hour of one core. Expect 98.03 ± 0.05 % at 98 %
zeros for Split LBI, fine-tuned, 98.06 ± 0.07 % for `linbreg`.
"""

import dataclasses

from . import compare_lenet300

rate, decay = (0.05, 0.2), (1e-6, 1e-4)

config = dataclasses.replace(
    compare_lenet300.config,
    methods=("split_lbi", "magnitude", "gradual", "linbreg"),
    fine_tune=9,
    ranges=(
        ("split_lbi.learning_rate", rate),
        ("split_lbi.kappa", (2.5, 6.0)),
        ("split_lbi.pull", (3.5, 7.0)),
        ("split_lbi.share", (0.8, 1.0)),
        ("magnitude.learning_rate", rate),
        ("magnitude.weight_decay", decay),
        ("gradual.learning_rate", rate),
        ("gradual.weight_decay", decay),
        ("gradual.ramp", (0.4, 0.85)),
        ("linbreg.learning_rate", rate),
        ("linbreg.kappa", (1.0, 4.0)),
        ("linbreg.ramp", (0.3, 0.6)),
    ),
)
