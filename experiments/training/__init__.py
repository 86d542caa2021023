"""A configuration made into a network, an optimizer and a compiled step; and the loop around it."""
