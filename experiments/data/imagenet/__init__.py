"""ImageNet, read from disk batch by batch."""
