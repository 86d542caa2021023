"""LeNet on MNIST with whole units as groups, 24 epochs: what Γ leaves out is removed exactly.

python -m experiments train lenet_units
python -m experiments compact RUN --sparsity 0.8
"""

import dataclasses

from . import lenet_path

config = dataclasses.replace(lenet_path.config, groups="units", share=0.25, keep_epochs=())
