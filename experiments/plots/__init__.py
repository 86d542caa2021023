"""The pictures of runs, and tables of text."""
