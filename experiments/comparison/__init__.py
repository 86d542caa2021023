"""Methods tuned alike, on the same data and budget."""
