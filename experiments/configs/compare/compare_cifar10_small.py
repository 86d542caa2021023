"""ResNet-8 on CIFAR-10 at 16×16, single weights, from 80 to 98 % zeros, every cell at the cost of one short training.

python -m experiments compare compare_cifar10_small --minutes 30

A screening for a CPU, chosen before looking: 2 epochs in batches of 64 (1,407 steps) of all images but 5,000 held out,
crops and flips, α = 0.1, momentum 0.9, decay 1e-4 on kernels (He et al.), seeds 0 to 2. Each sparsity takes a whole
training of its own: the path opens, the gradual ramp ends and the one cut is made at half of it, and the rest is
trained inside the mask. `magnitude` is the dense training, cut without fine-tuning. Nothing is tuned but step, κ and
ramp of `linbreg`, whose published ones are for long trainings: two trials at 95 % on the held-out images.
"""

from ...comparison.config import Comparison

config = Comparison(
    dataset="cifar10",
    model="resnet8",
    image_size=16,
    augment=True,
    methods=("magnitude", "split_lbi_paced", "split_lbi_paced_global", "one_shot", "gradual", "rigl", "linbreg"),
    sparsity=(0.8, 0.9, 0.95, 0.98),
    epochs=2,
    batch_size=64,
    validation=5000,
    mask_interval=0.02,
    trials=2,
    tune_at=(0.95,),
    seeds=3,
    fixed=(("learning_rate", 0.1), ("weight_decay", 1e-4), ("ramp", 0.5), ("drop", 0.3)),
    ranges=(("linbreg.learning_rate", (0.02, 0.2)), ("linbreg.ramp", (0.4, 0.85))),
    together=1,
)
