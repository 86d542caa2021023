"""A small ViT on 20,000 images of CIFAR-10, 4×4 patches, along a path of whole units.

python -m experiments train vit_cifar10

The groups are heads, hidden units and channels of the stream; 30 % of each layer are out at the end, and W is finished
inside the support. A screening of 1,250 steps: expect about 39 % on the test set for W = W̃ (39.21 %, one seed), and of
`compact RUN --sparsity 0.5 --scope layer` 27,202 of 119,194 parameters at 21 % without tuning.

For a GPU: `--model vit_mini` (2.7 million parameters) with `--images None --epochs 100 --augment`; not measured.
"""

from ...config import Config

config = Config(
    dataset="cifar10",
    images=20_000,
    validation=5000,
    model="vit_nano",
    epochs=4,
    batch_size=64,
    optimizer="adam",
    learning_rate=2e-3,
    drops=(0.75,),
    clip_norm=1.0,
    groups="units",
    sparsity=0.3,
    open_by=0.6,
)
