"""Six methods with a small convolutional network on the digits; needs no download.

python -m experiments compare compare_digits

Fixed before any test accuracy was read: 60 epochs (540 steps), four trials judged at 98 % zeros on 180 held-out images,
seeds 0 to 2; after a cut 15 epochs of fine-tuning from one sparsity to the next. Split LBI's range of `pull` was
lowered once, after trials (seed 1000, validation only) in which the coupling held the network at zero from the start.
(Test accuracy on 360 images has a standard error of 0.7 points.)
"""

from ...comparison.config import Comparison

config = Comparison(
    sparsity=(0.9, 0.95, 0.98), epochs=60, mask_interval=0.034, trials=4, tune_at=(0.98,), seeds=3, fine_tune=15
)
