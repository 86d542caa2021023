"""A compact model on disk: safetensors, JSON and StableHLO, read back without pickle."""
