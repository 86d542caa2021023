"""Configurations of `python -m experiments train`."""
