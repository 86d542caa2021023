"""LeNet on MNIST, grown from 2 units in each of its four layers, beside fixed LeNets of as many parameters.

python -m experiments grow grow_lenet

Not measured since units that are not used go. By the share of units in supp Γ, before that, seed 0 gave 22-21-14-18
with 19,967 parameters and 99.10 % on the test set, beside 99.06 % (same widths) and 98.92 % (published proportions).
"""

from ...growth.config import Grow

config = Grow(
    dataset="mnist",
    model="lenet",
    widths=(2,),
    epochs=2,
    batch_size=128,
    validation=5000,
    learning_rate=0.05,
    clip_norm=1.0,
    rounds=10,
    parameters=20_000,
    fine_tune=8,
    fine_tune_rate=0.1,
    compare="parameters",
)
