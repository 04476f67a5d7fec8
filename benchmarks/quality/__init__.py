"""How good the concepts are: retrieval against the strongest opponents, on the same images."""
