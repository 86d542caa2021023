"""LeNet on MNIST along a path that unfolds over the training, 24 epochs.

python -m experiments train lenet_path
"""

from ..config import Config

config = Config(
    dataset="mnist",
    model="lenet",
    epochs=24,
    batch_size=128,
    validation=5000,
    learning_rate=0.1,
    drop_epochs=(18,),
    nu=14.0,
    clip_norm=1.0,
    share=0.5,
    checkpoint_every=6,
    keep_epochs=(1, 2, 3, 4, 5),
)
