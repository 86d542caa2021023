"""All methods on the digits, 98 % sparse and less; needs no download.

python -m experiments compare compare_digits

Fixed before any test accuracy was read: 60 epochs, 6 trials judged at 95 %, seeds 0 to 4.
"""

from ..comparison import Comparison

config = Comparison(
    methods=("split_lbi", "magnitude", "gradual", "hard", "rigl", "linbreg", "rda", "prox_sgd"), every=20, fine_tune=12
)
