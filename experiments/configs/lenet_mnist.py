"""LeNet on MNIST by the recipe of the published code, 30 epochs.

python -m experiments train lenet_mnist
"""

from ..config import Config

config = Config(
    dataset="mnist",
    model="lenet",
    epochs=30,
    batch_size=128,
    validation=2000,
    learning_rate=0.1,
    drop_epochs=(20,),
    nu=20.0,
    filter_strength=1.0,
    weight_strength=1.0,
    checkpoint_every=5,
)
