"""Networks that grow between rounds of training."""
