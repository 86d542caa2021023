"""LeNet on 20,000 images of MNIST without a path: plain SGD, a trained network for `importance`.

python -m experiments train lenet_dense
python -m experiments importance RUN

The coupling is below rounding and nothing enters.
"""

import dataclasses

from . import lenet_mnist

config = dataclasses.replace(lenet_mnist.config, images=20_000, epochs=15, nu=1e30)
