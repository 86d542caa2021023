"""The embedded digits are those of scikit-learn, every fifth of them a test image."""

import numpy as np
from sklearn.datasets import load_digits

from experiments.data.in_memory import digits


def test_they_are_what_scikit_learn_loads():
    images, labels = load_digits(return_X_y=True)
    train, test, largest = digits()
    tested = np.arange(1797) % 5 == 0
    for split, part in ((train, ~tested), (test, tested)):
        np.testing.assert_array_equal(split.inputs, images[part].reshape(-1, 8, 8, 1))
        np.testing.assert_array_equal(split.labels, labels[part])
        assert (split.inputs.dtype, split.labels.dtype) == (np.uint8, np.int32)
    assert largest == train.inputs.max() == 16
