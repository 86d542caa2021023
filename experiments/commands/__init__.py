"""What `python -m experiments` can do: one command each."""
