"""LeNet on MNIST along a path that unfolds over the training, 24 epochs.

python -m experiments train lenet_path
python -m experiments prune RUN --layers conv3

About 10 minutes a seed on one shared CPU core. Expect, over three seeds, W̃ at 98.95 ± 0.06 % with 12 to 14 of the
120 filters of conv3, and 98.9 % with 12 of them after the cut.
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
    nu=14.0,
    clip_norm=1.0,
    sparsity=None,
    share=0.5,
    checkpoint_every=6,
    keep=(1 / 24, 2 / 24, 3 / 24, 4 / 24, 5 / 24),
)
