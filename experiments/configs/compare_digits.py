"""Eight methods with a small convolutional network on the digits; needs no download.

python -m experiments compare compare_digits

Fixed before any test accuracy was read: 60 epochs (540 steps), six trials judged at 98 % zeros on 180 held-out images,
seeds 0 to 4; after a cut 15 epochs of fine-tuning from one sparsity to the next. (Test accuracy on 360 images has a
standard error of 0.7 points.)
"""

from ..comparison import Comparison

config = Comparison(
    methods=("split_lbi", "magnitude", "gradual", "hard", "rigl", "linbreg", "rda", "prox_sgd"),
    epochs=60,
    every=20,
    tune_at=(0.98,),
    fine_tune=15,
)
