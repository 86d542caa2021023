"""LeNet on MNIST along a path that opens by itself, 24 epochs: one training that ends with 13 % of the weights.

python -m experiments train lenet_paced

Expect, over three seeds, 99.00 ± 0.05 % for W = W̃ with 12.4 to 12.9 % of the penalised weights, 12 or 13 of the 120
filters of conv3: what `lenet_path` has by strengths (98.96 ± 0.06 %). One sparsity of all layers together: with 0.87 of
each layer 1 of 6 and 2 of 16 filters are left of the first two.
"""

from ...config import Config

config = Config(
    dataset="mnist",
    model="lenet",
    epochs=24,
    batch_size=128,
    validation=5000,
    learning_rate=0.1,
    drops=(0.75,),
    clip_norm=1.0,
    sparsity=0.87,
    open_by=0.5,
    scope="global",
    checkpoint_every=6,
)
