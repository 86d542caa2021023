"""Removal and growth: parameters and optimizer state of another width."""
