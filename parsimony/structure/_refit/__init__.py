"""Readers of the kept units fitted to what they gave before a cut."""
