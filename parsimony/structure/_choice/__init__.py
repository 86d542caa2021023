"""Which units to keep, which to add, and what they cost."""
