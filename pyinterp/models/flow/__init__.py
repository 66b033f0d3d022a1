"""Which parts of a gated graph are constant, which are needed, and the smaller graph that computes only those."""
