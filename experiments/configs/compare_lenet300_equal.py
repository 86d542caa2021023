"""LeNet-300-100 on MNIST, weights, at equal cost: all methods spend about five runs on a row of five sparsities.

python -m experiments compare compare_lenet300_equal

As `compare_lenet300`, but where one run gives every sparsity, 9 epochs of fine-tuning follow each cut: 12 + 5·9 = 57
epochs a seed, where the others train five times 12 = 60. `split_lbi_kappa` has κ searched too, as it is for `linbreg`:
trials with seed 1000 that printed validation accuracy only said that 3 to 5 holds more at 98 % than 1 does.
"""

from ..comparison import Comparison

config = Comparison(
    dataset="mnist",
    model="lenet300",
    methods=("split_lbi", "split_lbi_kappa", "magnitude", "gradual", "hard", "linbreg"),
    epochs=12,
    validation=5000,
    every=100,
    trials=5,
    tune_at=(0.98,),
    fine_tune=9,
)
