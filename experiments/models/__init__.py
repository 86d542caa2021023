"""Networks, in Flax NNX. Images are float32 NHWC in [0, 1]; each class has the `image_shape` that it takes."""

from .lenet import LeNet, LeNet300, SmallCNN

models = {"small_cnn": SmallCNN, "lenet": LeNet, "lenet300": LeNet300}
