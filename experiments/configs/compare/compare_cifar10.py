"""ResNet-20 on CIFAR-10: Split LBI and five other methods from 80 to 98 % zeros; for an accelerator. Not measured here.

python -m experiments compare compare_cifar10
python -m experiments compare compare_cifar10 --model vgg16 --run-dir runs/compare_vgg16
python -m experiments compare compare_cifar10 --model resnet18_cifar --sparsity 0.966 --tune-at 0.966 --run-dir runs/r18

Fixed before anything was read: 60 epochs, five trials judged at 95 % zeros on 5,000 held-out images, seeds 0 to 2;
after a cut 15 epochs of fine-tuning from one sparsity to the next. 84 to 90 runs, and 54 to 78 times 15 epochs of
fine-tuning. The last command asks for 3.4 % of the weights, at which LinBreg's authors report 90.2 %, 93.6 % dense.
"""

from ...comparison.config import Comparison

config = Comparison(
    dataset="cifar10",
    model="resnet20",
    augment=True,
    methods=("split_lbi", "magnitude", "gradual", "hard", "rigl", "linbreg"),
    sparsity=(0.8, 0.9, 0.95, 0.98),
    epochs=60,
    validation=5000,
    mask_interval=0.00474,
    trials=5,
    tune_at=(0.95,),
    seeds=3,
    fine_tune=15,
    together=1,
)
