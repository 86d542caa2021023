"""Configurations of `python -m experiments compare`."""
