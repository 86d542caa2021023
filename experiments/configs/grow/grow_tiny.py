"""A network of at most 1,500 parameters for MNIST, grown from 2 filters in each of two convolutions.

python -m experiments grow grow_tiny

Expect 98.43, 98.51 and 98.46 % on the test set (seeds 0, 1 and 2), each with 6 and 5 filters, 1,404 parameters; the
published network of 1,500 has 98.40 %.
"""

from ...growth.config import Grow

config = Grow(
    dataset="mnist",
    model="tiny_cnn",
    widths=(2,),
    epochs=3,
    batch_size=128,
    validation=5000,
    learning_rate=0.05,
    clip_norm=1.0,
    ratio=0.34,
    parameters=1500,
    rounds=8,
    fine_tune=60,
    fine_tune_rate=0.1,
)
