"""A small convolutional network on scikit-learn's 1,797 handwritten digits.

python -m experiments train digits

The path opens over 0.7 of the training and W is finished inside the support. Expect 97.78, 99.17 and 98.33 %
on the test set (seeds 0, 1 and 2; 360 images, of which the rounding of the machine may decide one or two) with 29.8 %
of the penalised weights, 4 of 16 and 9 of 32 filters.
"""

from ...config import Config

config = Config()
