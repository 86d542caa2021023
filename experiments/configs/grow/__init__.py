"""Configurations of `python -m experiments grow`."""
