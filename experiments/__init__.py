"""Experiments on top of the public API of `parsimony`; run `python -m experiments --help`."""
