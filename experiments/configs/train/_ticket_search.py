"""What the ticket searches of the published code have in common: CIFAR-10, a constant step, and a mask of epoch 35.

The published code sets strengths, which leave W̃ empty or full with another length. Here the path opens by itself, over
the epochs up to the mask, and W stays dense.
"""

from typing import Any

RECIPE: dict[str, Any] = {
    "dataset": "cifar10",
    "epochs": 200,
    "batch_size": 64,
    "validation": 5000,
    "augment": True,
    "learning_rate": 0.1,
    "drops": (),
    "nesterov": True,
    "weight_decay": 1e-4,
    "open_by": 0.175,
    "finish": False,
    "keep": (0.175,),
}
