"""A small convolutional network on scikit-learn's 1,797 handwritten digits.

python -m experiments train digits
"""

from ..config import Config

config = Config()
