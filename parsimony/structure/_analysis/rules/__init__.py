"""One rule for each primitive of a jaxpr: which labels it unites, moves, or fixes."""
