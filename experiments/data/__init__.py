"""Data sets, from files to the batches of a step."""
