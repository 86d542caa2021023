"""LeNet on 20,000 images of MNIST without a path: plain SGD, a trained network for `importance`.

python -m experiments train lenet_dense
python -m experiments importance RUN

The coupling is below rounding and nothing enters. Expect, over three seeds, 98.87 ± 0.07 % for W; of 70 % of its units
removed without fine-tuning, 93.15 ± 1.08 % by the path on gates and 85.64 ± 2.38 % by magnitude.
"""

import dataclasses

from . import lenet_mnist

config = dataclasses.replace(lenet_mnist.config, images=20_000, epochs=15, nu=1e30)
