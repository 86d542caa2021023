"""The small network of the digits, grown from 2 units in each of its three layers; needs no download.

python -m experiments grow grow_digits
"""

from ...growth.config import Grow

config = Grow(widths=(2,), epochs=30, learning_rate=0.05, rounds=6, fine_tune=60, fine_tune_rate=0.05)
