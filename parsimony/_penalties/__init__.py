"""Penalties: what one is (`penalty`), those there are, and which parameter has which (`rules`, `layouts`)."""
