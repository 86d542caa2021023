"""What the ticket searches of the published code have in common: CIFAR-10, a constant step, and a mask of epoch 35."""

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
    "share": None,
    "keep": (0.175,),
}
